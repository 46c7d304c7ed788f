// SPDX-License-Identifier: Apache-2.0
#include "daemon/etcd/etcd_json.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "core/model/utf8.h"
#include "daemon/etcd/base64.h"

namespace eplbd {
namespace {

using Json = nlohmann::json;

constexpr int64_t kMostTtlSeconds = 3600;
constexpr size_t kMostErrorBytes = 300;
constexpr size_t kMostTokenBytes = 16 << 10;  // a field of HTTP takes no more than 64 KiB
// What is asked for are a few keys: each value in memory is many times what it is on the wire.
constexpr size_t kMostValues = 10'000;
constexpr int64_t kHighestRevision = int64_t{1} << 62;

[[noreturn]] void fail(const std::string& what) { throw EtcdError("etcd: " + what); }

// At least as many values as there are in it: none of these stands in base64.
size_t values_in(const std::string& json) {
  return static_cast<size_t>(std::count_if(
      json.begin(), json.end(), [](char c) { return c == ',' || c == '[' || c == '{'; }));
}

// Null: it is no JSON object.
Json parsed(const std::string& answer) {
  if (values_in(answer) > kMostValues) fail("answered more than what it was asked");
  Json json = Json::parse(answer, nullptr, /*allow_exceptions=*/false);
  return json.is_object() ? json : Json();
}

Json object_in(const std::string& answer) {
  Json json = parsed(answer);
  if (json.is_null()) fail("answered no JSON object");
  return json;
}

const Json& member(const Json& json, const char* name) {
  static const Json nothing;
  const auto found = json.is_object() ? json.find(name) : json.end();
  return json.is_object() && found != json.end() ? *found : nothing;
}

// 64-bit integers come as strings, and 0 as nothing.
int64_t number(const Json& json) {
  if (json.is_null()) return 0;
  if (json.is_number_unsigned()) {
    const auto value = json.get<uint64_t>();
    if (value <= std::numeric_limits<int64_t>::max()) return static_cast<int64_t>(value);
  } else if (json.is_number_integer()) {
    return json.get<int64_t>();
  } else if (json.is_string()) {
    const auto& text = json.get_ref<const std::string&>();
    int64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error == std::errc{} && end == text.data() + text.size()) return value;
  }
  fail("answered something else where a number belongs");
}

std::string bytes(const Json& json) {
  if (json.is_null()) return {};
  auto decoded = json.is_string() ? from_base64(json.get_ref<const std::string&>()) : std::nullopt;
  if (!decoded) fail("answered what is no base64");
  return std::move(*decoded);
}

int64_t revision_of(const Json& json) {
  const int64_t revision = number(member(member(json, "header"), "revision"));
  if (revision < 1 || revision > kHighestRevision) fail("answered no revision of its store");
  return revision;
}

EtcdRange range_of(const Json& json, int64_t revision) {
  EtcdRange range;
  range.revision = revision;
  const Json& keys = member(json, "kvs");
  if (!keys.is_null() && !keys.is_array()) fail("answered no list of keys");
  for (const Json& key : keys) {
    range.keys.push_back({bytes(member(key, "key")), bytes(member(key, "value")),
                          number(member(key, "create_revision")),
                          number(member(key, "mod_revision"))});
  }
  return range;
}

// The key after all that begin with `prefix`, as etcd wants it.
std::string after(std::string prefix) {
  while (!prefix.empty() && static_cast<unsigned char>(prefix.back()) == 0xff) prefix.pop_back();
  if (!prefix.empty()) prefix.back() = static_cast<char>(prefix.back() + 1);
  return prefix;
}

Json range_json(const std::string& prefix) {
  return {{"key", to_base64(prefix)}, {"range_end", to_base64(after(prefix))}};
}

}  // namespace

const EtcdKey* EtcdRange::find(std::string_view key) const {
  const auto found =
      std::find_if(keys.begin(), keys.end(), [&](const EtcdKey& each) { return each.key == key; });
  return found == keys.end() ? nullptr : &*found;
}

// ---- Requests ----

std::string authenticate_request(const std::string& user, const std::string& password) {
  return Json{{"name", user}, {"password", password}}.dump();
}

std::string grant_request(Duration ttl) {
  return Json{{"TTL", std::to_string(static_cast<int64_t>(std::ceil(to_seconds(ttl))))}}.dump();
}

std::string lease_request(int64_t lease) { return Json{{"ID", std::to_string(lease)}}.dump(); }

std::string range_request(const std::string& prefix) { return range_json(prefix).dump(); }

std::string transact_request(const EtcdTransaction& transaction) {
  Json compare = Json::array();
  for (const auto& expect : transaction.expected) {
    const bool create = expect.revision == &EtcdKey::create_revision;
    compare.push_back(
        {{"key", to_base64(expect.key)},
         {"target", create ? "CREATE" : "MOD"},
         {"result", "EQUAL"},
         {create ? "create_revision" : "mod_revision", std::to_string(expect.value)}});
  }
  Json success = Json::array();
  Json failure = Json::array();
  if (!transaction.range.empty()) {
    const Json range = {{"request_range", {{"key", to_base64(transaction.range)}}}};
    success.push_back(range);
    failure.push_back(range);
  }
  for (const auto& put : transaction.puts) {
    success.push_back({{"request_put",
                        {{"key", to_base64(put.key)},
                         {"value", to_base64(put.value)},
                         {"lease", std::to_string(put.lease)}}}});
  }
  return Json{{"compare", compare}, {"success", success}, {"failure", failure}}.dump();
}

std::string watch_request(const std::string& prefix, int64_t revision) {
  Json range = range_json(prefix);
  range["start_revision"] = std::to_string(revision);
  return Json{{"create_request", range}}.dump();
}

// ---- Answers ----

void check_refusal(std::string_view path, const EtcdResponse& response) {
  if (response.status == 200) return;
  const Json json = parsed(response.body);
  const Json& error = member(json, "error");
  const Json& code = member(json, "code");
  const std::string why =
      error.is_string() ? printable_line(error.get<std::string>(), kMostErrorBytes) : "no word why";
  throw EtcdRefused("etcd refused " + std::string(path) + ": " + why + " (status " +
                        std::to_string(response.status) + ")",
                    code.is_number_integer() ? code.get<int64_t>() : 0);
}

std::string token_in(const std::string& answer) {
  const Json json = object_in(answer);
  const Json& given = member(json, "token");
  std::string token = given.is_string() ? given.get<std::string>() : "";
  const bool fits = !token.empty() && token.size() <= kMostTokenBytes;
  const bool header = fits && std::all_of(token.begin(), token.end(),
                                          [](unsigned char c) { return c > 0x20 && c < 0x7f; });
  if (!header) fail("gave no token");
  return token;
}

EtcdLease lease_in(const std::string& answer) {
  const Json json = object_in(answer);
  const int64_t id = number(member(json, "ID"));
  const int64_t granted = number(member(json, "TTL"));
  if (id == 0 || granted < 1 || granted > kMostTtlSeconds) fail("granted no lease");
  return {id, std::chrono::seconds(granted)};
}

std::optional<Duration> kept_alive_in(const std::string& answer) {
  const Json json = object_in(answer);
  const int64_t seconds = number(member(member(json, "result"), "TTL"));
  if (seconds < 1 || seconds > kMostTtlSeconds) return std::nullopt;
  return std::chrono::seconds(seconds);
}

EtcdRange range_in(const std::string& answer) {
  const Json json = object_in(answer);
  return range_of(json, revision_of(json));
}

EtcdTransacted transacted_in(const std::string& answer) {
  const Json json = object_in(answer);
  EtcdTransacted result;
  result.done = member(json, "succeeded") == true;
  result.range.revision = revision_of(json);
  const Json& responses = member(json, "responses");
  if (responses.is_array() && !responses.empty()) {
    result.range = range_of(member(responses[0], "response_range"), result.range.revision);
  }
  return result;
}

}  // namespace eplbd
