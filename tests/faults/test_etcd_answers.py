# SPDX-License-Identifier: Apache-2.0
"""What answers in etcd's place and is none: how often it is asked, and what is said of it."""

import http.server
import json
import threading
import time
import unittest

from harness import Daemon, DaemonTest, eventually

HEADER = {"header": {"revision": "5"}}
SHORTEST_ROUND = 0.01  # of the election, seconds
LINES = 5  # of etcd's troubles, in so many seconds
SECONDS = 10


class NoEtcd:
    """Answers what `answers` say, by the last word of the path; notes when it was asked."""

    def __init__(self, answers: dict) -> None:
        self.asked = []  # (monotonic, word)
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # all of an answer at once

            def do_POST(self):
                word = self.path.rpartition("/")[2]
                self.rfile.read(int(self.headers["Content-Length"]))
                outer.asked.append((time.monotonic(), word))
                answer = answers[word]
                status, body = answer() if callable(answer) else (200, answer)
                text = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def times(self, word: str) -> list[float]:
        return [at for at, asked in self.asked if asked == word]

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


class EtcdAnswers(DaemonTest):
    def serve(self, answers: dict) -> tuple[NoEtcd, Daemon]:
        etcd = NoEtcd(answers)
        self.addCleanup(etcd.close)
        daemon = Daemon(ha={"etcd": [etcd.url], "ttl": "2s"})
        self.addCleanup(self._end, daemon)
        daemon.begin()
        return etcd, daemon

    def test_elections_that_nobody_wins_are_not_hurried(self):
        etcd, _ = self.serve({"range": HEADER, "grant": {"ID": "7", "TTL": "2"},
                              "txn": HEADER, "revoke": HEADER})
        rounds = eventually(lambda: len(etcd.times("range")) >= 50 and etcd.times("range")[:50],
                            "50 rounds of the election")
        # The first one may have been noted late; each later one began after that.
        self.assertGreaterEqual(rounds[-1] - rounds[0], (len(rounds) - 2) * SHORTEST_ROUND)

    def test_a_lease_that_it_will_not_end_ends_by_itself(self):
        etcd, daemon = self.serve({"range": HEADER, "grant": {"ID": "7", "TTL": "1"}, "txn": HEADER,
                                   "revoke": lambda: (403, {"error": "not yours", "code": 7})})
        eventually(lambda: len(etcd.times("grant")) >= 3, "it takes part again")
        self.assertIn("etcd refused lease/revoke: not yours (status 403)", daemon.log())

    def test_errors_that_differ_each_time_do_not_fill_the_log(self):
        def refuse():
            return 500, {"error": f"no, for the {len(etcd.asked)}th time", "code": 2}

        began = time.monotonic()
        etcd, daemon = self.serve({"range": HEADER, "grant": refuse})
        eventually(lambda: len(etcd.times("grant")) >= 2 * LINES, f"{2 * LINES} elections")
        lines = daemon.log().count("th time")
        self.assertGreater(lines, 0)
        self.assertLessEqual(lines, LINES * (1 + int((time.monotonic() - began) / SECONDS)))


if __name__ == "__main__":
    unittest.main()
