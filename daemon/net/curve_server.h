// CURVE on the bound sockets: who may connect, and for whom a key may speak (ZMTP 3.1 CURVE,
// RFC 27/ZAP). Keys are Z85 text, as `eplbctl keygen` writes them.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <zmq.hpp>

namespace boost::asio {
class io_context;
}

namespace eplbd {

// ZAP domains: on which socket a peer knocks.
inline constexpr char kCountsDomain[] = "counts";
inline constexpr char kPlacementsDomain[] = "placements";

// The folder of authorized keys holds files *.pub, a key a line, blank lines and lines that begin
// with "# " aside:
//
//   <Z85 public key> source NAME...    a worker's: sends as these sources, and subscribes
//   <Z85 public key> observer          subscribes only
class CurveServer {
 public:
  // `secret_key_file`: the daemon's secret key, readable by nobody else. Throws std::runtime_error
  // with file and line. Answers the ZAP requests of `zmq_context` on the loop; `denied` is told of
  // each peer that was turned away. Outlives the sockets that it secures.
  CurveServer(boost::asio::io_context& io, zmq::context_t& zmq_context,
              const std::string& secret_key_file, const std::string& authorized_keys,
              std::function<void(std::string_view peer)> denied);
  ~CurveServer();
  CurveServer(const CurveServer&) = delete;
  CurveServer& operator=(const CurveServer&) = delete;

  // Before the socket binds.
  void secure(zmq::socket_ref socket, const char* domain) const;

  // `user_id` as ZAP gave it out: whether that key still may send as `source`.
  bool may_speak(std::string_view user_id, std::string_view source) const;

  // Whether that key still may connect to the socket of ZAP domain `domain`.
  bool may_connect(std::string_view user_id, std::string_view domain) const;

  // Reads the folder again; throws and keeps what it had. Peers that are connected keep their
  // connection until their socket asks again; a key that is gone speaks for nobody at once.
  void reload();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace eplbd
