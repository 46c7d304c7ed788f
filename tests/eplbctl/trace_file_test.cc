// SPDX-License-Identifier: Apache-2.0
#include "eplbctl/trace_file.h"

#include <catch2/catch.hpp>
#include <cstring>

#include "daemon/formats/npy.h"
#include "tests/eplbctl/temporary_file.h"

namespace eplbd {
namespace {

template <typename T>
std::string bytes_of(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

template <typename T>
std::string npy(NpyType type, std::vector<int64_t> shape, const std::vector<T>& values) {
  return npy_header(type, shape) + bytes_of(values);
}

// As numpy's header, but said freely: for what numpy never writes, or only for other arrays.
std::string npy_of(char version, const std::string& dict, const std::string& data) {
  std::string text = "\x93NUMPY";
  text += {version, '\0', static_cast<char>(dict.size()), '\0'};
  if (version > 1) text += {'\0', '\0'};
  return text + dict + data;
}

std::string error_of(const std::string& content) {
  const TemporaryFile file(content);
  try {
    const TraceFile trace(file.name());
  } catch (const std::runtime_error& error) {
    const std::string what = error.what();
    REQUIRE(what.starts_with(file.name() + ": "));
    return what.substr(file.name().size() + 2);
  }
  return "";
}

std::vector<double> step_of(const std::string& content, int64_t step) {
  const TemporaryFile file(content);
  const TraceFile trace(file.name());
  std::vector<double> counts(trace.cells());
  trace.read_step(step, counts);
  return counts;
}

template <typename T>
void check_type(NpyType type) {
  const std::string two = npy<T>(type, {2, 3}, {0, 1, 2, 3, 4, 5});
  CHECK(step_of(two, 0) == std::vector<double>{0, 1, 2, 3, 4, 5});
  const std::string three = npy<T>(type, {3, 1, 2}, {0, 1, 2, 3, 4, 5});
  CHECK(step_of(three, 2) == std::vector<double>{4, 5});
}

TEST_CASE("every element type of .npy is read, two and three dimensions") {
  check_type<int32_t>(NpyType::int32);
  check_type<int64_t>(NpyType::int64);
  check_type<uint32_t>(NpyType::uint32);
  check_type<uint64_t>(NpyType::uint64);
  check_type<float>(NpyType::float32);
  check_type<double>(NpyType::float64);
}

TEST_CASE("header versions 1 to 3, and dictionaries in any order and quotes") {
  const std::string data = bytes_of<uint32_t>({7, 8});
  for (const char version : {'\1', '\2', '\3'}) {
    const std::string dict = "{\"shape\": (1,2,), \"fortran_order\": False,\"descr\":\"<u4\"}  \n";
    CHECK(step_of(npy_of(version, dict, data), 0) == std::vector<double>{7, 8});
  }
  const std::string dict = "{'descr': '<u4', 'fortran_order': False, 'shape': (1, 2), }\n";
  CHECK(error_of(npy_of('\4', dict, data)).find("format version is 4") != std::string::npos);
}

TEST_CASE("what a .npy must not be is said") {
  const std::string data = bytes_of<uint32_t>({7, 8});
  const auto dict = [](const std::string& descr, const std::string& order,
                       const std::string& shape) {
    return "{'descr': " + descr + ", 'fortran_order': " + order + ", 'shape': " + shape + ", }\n";
  };
  const auto error = [&](const std::string& descr, const std::string& order,
                         const std::string& shape) {
    return error_of(npy_of('\1', dict(descr, order, shape), data));
  };
  using Catch::Contains;
  CHECK(error("'<u4'", "False", "(1, 2)").empty());
  CHECK_THAT(error("'<u4'", "True", "(1, 2)"), Contains("Fortran order"));
  CHECK_THAT(error("'>u4'", "False", "(1, 2)"), Contains("big-endian"));
  CHECK_THAT(error("'<i2'", "False", "(1, 4)"), Contains("its type is <i2"));
  CHECK_THAT(error("[('a', '<u4')]", "False", "(1, 2)"), Contains("records"));
  CHECK_THAT(error("'<u4'", "False", "(2, 2)"), Contains("truncated: 8 bytes of data"));
  CHECK_THAT(error("'<u4'", "False", "(1, 1)"), Contains("behind its end"));
  CHECK_THAT(error("'<u4'", "False", "(2,)"), Contains("1 dimensions"));
  CHECK_THAT(error("'<u4'", "False", "()"), Contains("behind its end"));
  CHECK_THAT(error("'<u4'", "False", "(-1, 2)"), Contains("a size expected"));
  CHECK_THAT(error("'<u4'", "False", "(9223372036854775807, 9223372036854775807)"),
             Contains("too large"));
  CHECK_THAT(error("'<u4'", "Maybe", "(1, 2)"), Contains("True or False"));
  CHECK_THAT(error_of(npy_of('\1', dict("'<u4'", "False", "(0, 2)"), "")), Contains("of 0"));
  CHECK_THAT(error_of(npy_of('\1', "{'descr': '<u4'}", data)), Contains("lacks"));
}

TEST_CASE("a .npy cut anywhere is an error, never a crash") {
  const std::string whole = npy<uint32_t>(NpyType::uint32, {2, 2}, {1, 2, 3, 4});
  REQUIRE(error_of(whole).empty());
  for (size_t length = 0; length < whole.size(); ++length) {
    CHECK_FALSE(error_of(whole.substr(0, length)).empty());
  }
}

TEST_CASE("loads that are negative or no number are named by their place") {
  const std::string negative = npy<int32_t>(NpyType::int32, {2, 2, 2}, {1, 1, 1, 1, 1, 1, -3, 1});
  CHECK_THAT(error_of(negative), Catch::Contains("step 1, layer 1, expert 0: the load -3"));
  const std::string nan = npy<double>(NpyType::float64, {1, 2}, {1, std::nan("")});
  CHECK_THAT(error_of(nan), Catch::Contains("step 0, layer 0, expert 1"));
}

TEST_CASE("the three JSON forms") {
  const std::vector<double> second = {3, 4, 5, 6};
  CHECK(step_of("[[[1,2],[0,1]],[[3,4],[5,6]]]", 1) == second);
  CHECK(step_of("[[3,4],[5,6]]", 0) == second);
  CHECK(step_of(R"({"logical_count": [[3,4],[5,6]], "rank": 3})", 0) == second);
  CHECK(step_of(R"({"logical_count": [[[1,2],[0,1]],[[3,4],[5,6]]]})", 1) == second);
  CHECK(step_of(R"({"load_history": [{"logical_expert_load": [[1,2],[0,1]]},
                                     {"logical_expert_load": [[3,4],[5,6]], "x": 1}]})",
                1) == second);
  const TemporaryFile file("[[[1,2],[0,1]],[[3,4],[5,6]]]");
  CHECK(TraceFile(file.name()).sum() == std::vector<double>{4, 6, 5, 7});
}

TEST_CASE("JSON that is not loads is refused with its place") {
  using Catch::Contains;
  CHECK_THAT(error_of("[[1,2],[3]]"), Contains("[1] has 1 items, those before it 2"));
  CHECK_THAT(error_of("[[[1,2]],[[3,4],[1,2]]]"), Contains("[1] has 2 items"));
  CHECK_THAT(error_of("[[1,2],[3,\"4\"]]"), Contains("[1][1]: a number expected, found string"));
  CHECK_THAT(error_of("[[1,2],3]"), Contains("[1]: a list expected, found number"));
  CHECK_THAT(error_of("[[1,2],[3,-4]]"), Contains("layer 1, expert 1"));
  CHECK_THAT(error_of("[1,2]"), Contains("1 dimensions, 2 to 3 expected"));
  CHECK_THAT(error_of("[[[[1]]]]"), Contains("4 dimensions"));
  CHECK_FALSE(error_of("[]").empty());
  CHECK_FALSE(error_of("[[]]").empty());
  CHECK_FALSE(error_of("[[],[]]").empty());
  CHECK_THAT(error_of("{\n\"logical_count\": [[1,\n}"),
             Contains("line 3: it is no JSON: \"}\" is not expected there"));
  CHECK_THAT(error_of("{\n\"logical_count\": [[1,"),
             Contains("line 2: it is no JSON: it ends too early"));
  CHECK_THAT(error_of("{\"loads\": [[1]]}"), Contains("load_history"));
  CHECK_THAT(error_of("{\"logical_count\": 5}"), Contains("a list expected"));
  CHECK_THAT(error_of(R"({"logical_count": [[1]], "physical_to_logical_map": [[0]]})"),
             Contains("holds a placement"));
  CHECK_THAT(error_of(R"({"load_history": [{"logical_expert_load": [[1,2]]},
                                           {"logical_expert_load": [[1]]}]})"),
             Contains("load_history[1].logical_expert_load has another shape"));
  CHECK_THAT(error_of(R"({"load_history": [{}]})"), Contains("load_history[0] has no"));
  CHECK_THAT(error_of("[[1e999]]"), Contains("no JSON"));
  CHECK_THAT(error_of("hello"), Contains("neither JSON"));
}

TEST_CASE("tables: with a heading or not, a line a layer or a cell") {
  const std::vector<double> second{3, 0, 4};
  CHECK(step_of("1;2\n3;4\n", 0) == std::vector<double>{1, 2, 3, 4});
  CHECK(step_of("# by hand\n\n1 2\n3  4\r\n", 0) == std::vector<double>{1, 2, 3, 4});
  CHECK(step_of("step,layer,a,b,c\n9,4,3,0,4\n7,4,1,1,1\n", 1) == second);
  CHECK(step_of("step,a,b,c\n0,1,1,1\n1,3,0,4\n", 1) == second);
  CHECK(step_of("step\tlayer\texpert\tload\n1\t4\t2\t4\n1\t4\t0\t3\n0\t4\t1\t1\n", 1) == second);
  CHECK(error_of("step,layer,a\n0,5,1\n0,6,1\n1,6,1\n") == "step 1 has no layer 5");
  CHECK(error_of("layer,expert,load\n0,0,1\n1,99999,1\n") ==
        "it stands for far more cells than it has");
  CHECK(error_of("layer,layer,a\n1,1,1\n") == "line 1: two columns say the layer");
  CHECK(error_of("layer\n1\n") ==
        "it is text, but neither JSON, JSON Lines nor a table of numbers (CSV)");
  CHECK(error_of("step,layer\n1,1\n") == "line 1: no column holds loads");
  CHECK(error_of("1,2\n3\n") == "line 2: 1 columns, those before it have 2");
  CHECK(error_of("1,2\n3,inf\n") == "line 2: a load that is no finite number");
}

TEST_CASE("JSON Lines: a line is a step") {
  CHECK(step_of("[[1,2]]\n\n{\"logical_count\": [[3,4]]}\n", 1) == std::vector<double>{3, 4});
  CHECK(error_of("[[1,2]]\n[[1]]\n") == "line 2 has another shape than the first");
  CHECK(error_of("[[1,2]]\n[[1,\n") == "line 2: it is no JSON");
  CHECK(error_of("{\"a\": 1}\n{\"a\": 1}\n") ==
        "line 1: a list, logical_expert_load or logical_count expected");
}

TEST_CASE("a step as counts: rounded, and refused where that loses the load") {
  std::vector<uint32_t> counts(2);
  to_counts(std::vector<double>{1000.4, 999.6}, counts);
  CHECK(counts == std::vector<uint32_t>{1000, 1000});
  CHECK_THROWS_WITH(to_counts(std::vector<double>{0.4, 0.6}, counts), Catch::Contains("fractions"));
  CHECK_THROWS_WITH(to_counts(std::vector<double>{5e9, 1}, counts), Catch::Contains("32 bits"));
  to_counts(std::vector<double>{0, 4294967295.0}, counts);
  CHECK(counts == std::vector<uint32_t>{0, 4294967295u});
}

}  // namespace
}  // namespace eplbd
