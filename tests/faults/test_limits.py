# SPDX-License-Identifier: Apache-2.0
"""What one peer can take of memory, descriptors, processor time, network and log is bounded, and
nobody else is affected."""

import json
import os
import resource
import socket
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

import numpy as np

from budget import DESCRIPTORS, LOG_BYTES_AT_ONCE, LOG_BYTES_PER_SECOND, MEMORY, MIB, Budget
from harness import SHAPE, Daemon, DaemonTest, ask, eventually, program
from raw_peer import RawPeer
from workers import Follower, Publisher, initial_map, skewed_load

LOAD = skewed_load(1, **SHAPE)
# An attack may have a connection's share, with what its frames take beside their bytes.
MOST_MIB_OF_A_CONNECTION = 320


class Limits(DaemonTest):
    def setUp(self):
        self.subject = Daemon(mode="observe")
        self.budget = Budget(self.subject)
        self.addCleanup(self.budget.close)
        self.addCleanup(self._end, self.subject)
        self.subject.start()
        self.budget.begin()
        self.good = Publisher(self.subject.counts, source="good").connected()
        self.follower = Follower(self.subject.placements)
        self.addCleanup(self.good.close)
        self.addCleanup(self.follower.close)

    def tearDown(self):
        """Whatever the attack was. With EPLBD_FIGURES, the figures as a row of a table."""
        self.assertIsNone(self.subject.process.poll(), "ended by itself")
        took = self.budget.end()
        if os.environ.get("EPLBD_FIGURES"):
            print(
                f"| {self.id().rpartition('.test_')[2].replace('_', ' ')} | {took['peak_mib']:.0f} "
                f"| {took['descriptors']} | {took['log_bytes'] / took['seconds']:.0f} "
                f"| {took['cpu']:.2f} | {took['seconds']:.1f} |"
            )
        self.assertLess(took["peak_mib"], MEMORY / MIB)
        self.assertLess(took["descriptors"], DESCRIPTORS)
        most = LOG_BYTES_AT_ONCE + LOG_BYTES_PER_SECOND * took["seconds"]
        self.assertLess(took["log_bytes"], most)

    def others_are_served(self):
        name = "counts_tokens_total"
        before = self.subject.metrics()(name)
        self.good.counts(LOAD)
        eventually(lambda: self.subject.metrics()(name) >= before + LOAD.sum(), "counted")
        beats = len(self.follower.heartbeats)
        eventually(lambda: self.follower.poll(0.1) or len(self.follower.heartbeats) > beats, "beat")
        self.assertEqual(self.subject.get("/healthz")[0], 200)

    def resident(self) -> float:
        text = Path(f"/proc/{self.subject.process.pid}/statm").read_text()
        return int(text.split()[1]) * resource.getpagesize() / MIB

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.subject.process.pid}/fd"))

    def flood(self, peer, send):
        """`send` again and again, until the daemon ends the connection."""
        deadline = time.monotonic() + 60
        try:
            while time.monotonic() < deadline:
                send()
        except TimeoutError:
            pass  # nobody reads any more
        except OSError:
            return
        self.assertTrue(peer.ended(), "the connection was not ended")

    def expect_bounded(self, endpoint, kind, **frames):
        before = self.resident()
        peer = RawPeer(endpoint, kind)
        self.addCleanup(peer.close)
        self.flood(peer, lambda: peer.send(**frames))
        self.assertLess(self.subject.usage()[1] - before, MOST_MIB_OF_A_CONNECTION)
        self.others_are_served()
        eventually(lambda: self.resident() < before + 64, "given back")

    def test_a_message_of_endless_large_frames(self):
        self.expect_bounded(self.subject.counts, b"PUB", frame=bytes(MIB), more=True)

    def test_a_message_of_endless_small_frames(self):
        self.expect_bounded(self.subject.counts, b"PUB", frame=b"", more=True, times=1000)

    def test_an_endless_message_to_the_placements_socket(self):
        self.expect_bounded(self.subject.placements, b"SUB", frame=bytes(1000), more=True, times=100)

    def test_many_long_subscriptions(self):
        before = self.resident()
        peer = RawPeer(self.subject.placements, b"SUB")
        self.addCleanup(peer.close)
        rng = np.random.default_rng(1)
        self.flood(peer, lambda: peer.send(b"\1" + rng.bytes(1000)))
        self.assertLess(self.subject.usage()[1] - before, MOST_MIB_OF_A_CONNECTION)
        self.others_are_served()

    def test_one_that_subscribes_again_and_again_costs_others_little(self):
        self.others_are_served()
        self.follower.seen.clear()
        toggling = RawPeer(self.subject.placements, b"SUB")
        self.addCleanup(toggling.close)
        start = time.monotonic()
        while time.monotonic() < start + 4:
            toggling.send(b"\0test")
            toggling.send(b"\1test")
            self.follower.poll(0.001)
        took = time.monotonic() - start
        self.assertLessEqual(len(self.follower.seen), 12 + took)
        self.others_are_served()

    def test_a_worker_may_subscribe_anew_as_often_as_it_must(self):
        peer = Follower(self.subject.placements)
        self.addCleanup(peer.close)
        for _ in range(200):
            peer.socket.unsubscribe(peer.topic)
            peer.socket.subscribe(peer.topic)
        eventually(lambda: peer.poll(0.05) or peer.seen, "the placement in force")
        self.others_are_served()

    def test_pings_and_orders_to_subscribe_that_do_not_end(self):
        ping = b"\4" + bytes([23]) + b"\4PING" + bytes(18)
        for endpoint, kind, frames in (
            (self.subject.counts, b"PUB", ping * 1000),
            (self.subject.placements, b"SUB", b"\0\5\1test\0\2\7x" * 1000),
        ):
            with self.subTest(kind):
                peer = RawPeer(endpoint, kind)
                self.addCleanup(peer.close)
                end = time.monotonic() + 2
                try:
                    while time.monotonic() < end:
                        peer.socket.sendall(frames)
                except OSError:
                    pass  # ended; or nobody reads, as what we do not read fills up
                self.others_are_served()

    def test_http_clients_that_do_not_end_their_request_or_do_not_read(self):
        host, _, port = self.subject.http.rpartition(":")
        before = self.resident()
        for request in (b"GET / HTTP/1.1\r\nX: ", b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 8):
            with self.subTest(request[:20]):
                slow = [socket.create_connection((host, int(port)), 5) for _ in range(300)]
                for connection in slow:
                    self.addCleanup(connection.close)
                for connection in slow:
                    try:
                        connection.sendall(request)
                    except OSError:
                        pass  # another one took its place
                self.others_are_served()
        self.assertLess(self.subject.usage()[1] - before, 64)

    def test_large_orders_leave_nothing_behind(self):
        before = self.resident()
        for body in (b"[1]," * 3_000_000, b"[" * 8_000_000):
            with self.subTest(len(body)):
                status = self.post_raw(b'{"physical_to_logical_map":[' + body)
                self.assertIn(status, (400, 413, None))
        self.assertLess(self.subject.usage()[1] - before, 64)
        self.others_are_served()

    def post_raw(self, body):
        connection = self.subject.control()
        try:
            connection.request("POST", "/v1/import", body)
            return connection.getresponse().status
        except OSError:
            return None  # it did not read on
        finally:
            connection.close()

    def test_the_log_of_a_reporter_that_flaps(self):
        initial = initial_map(**SHAPE)
        other = initial.copy()
        other[:, [0, 1]] = other[:, [1, 0]]
        before = len(self.subject.log())
        start = time.monotonic()
        while time.monotonic() < start + 3:
            for table in (initial, other):
                self.good.state(table)
            self.good.state(initial, error="x" * 3000, status="failed")
            self.good.send(b"garbage")
            time.sleep(0.002)
        took = time.monotonic() - start
        self.others_are_served()
        self.assertLess((len(self.subject.log()) - before) / took, 4000, "bytes a second")

    def test_an_ipc_endpoint_and_a_file_are_not_taken_away(self):
        folder = self.subject.folder
        precious = folder / "precious"
        precious.write_text("content")
        path = folder / "counts.ipc"
        first = self.daemon(endpoints={"counts": {"bind": [f"ipc://{path}"]}})
        for bind, why in ((f"ipc://{path}", "another process has it"), (f"ipc://{precious}", "stays")):
            with self.subTest(bind):
                config = json.loads(json.dumps(first.config))
                config["endpoints"]["counts"]["bind"] = [bind]
                config["endpoints"]["placements"]["bind"] = ["tcp://127.0.0.1:*"]
                config["http"]["listen"] = "127.0.0.1:0"
                config["control"]["socket"] = str(folder / "other.sock")
                config["state"]["directory"] = str(folder / "other")
                file = folder / "other.yaml"
                file.write_text(json.dumps(config))
                ended = subprocess.run(
                    [program("eplbd"), "--config", file], capture_output=True, text=True, timeout=20
                )
                self.assertEqual(ended.returncode, 1)
                self.assertIn(why, ended.stderr)
        self.assertEqual(precious.read_text(), "content")
        worker = Publisher(f"ipc://{path}").connected()
        self.addCleanup(worker.close)
        worker.counts(LOAD)
        eventually(lambda: first.metrics()("counts_tokens_total") == LOAD.sum(), "still the first's")

    def test_a_pipe_as_configuration_is_refused_at_once(self):
        file = self.subject.folder / "eplbd.yaml"
        text = file.read_text()
        file.unlink()
        os.mkfifo(file)
        status, body, _ = ask(self.subject.control(), "POST", "/v1/reload", {})
        self.assertEqual(status, 409, body)
        self.assertIn("not a regular file", body)
        file.unlink()
        file.write_text(text)
        self.subject.reload()

    def test_a_shorter_interval_holds_at_once(self):
        self.subject.reload(trigger={"interval": "30d"})
        self.subject.reload(trigger={"interval": "20ms"}, mode="active")
        self.good.counts(LOAD * 5)
        eventually(lambda: self.follower.poll(0.05), "an update")


class Descriptors(DaemonTest):
    """Few descriptors: refused, or served without spinning."""

    def start_with(self, limit: int) -> Daemon:
        subject = Daemon(mode="observe")
        self.addCleanup(self._end, subject)
        subject.limits = {resource.RLIMIT_NOFILE: (limit, limit)}
        return subject.start()

    def test_too_few_are_refused_with_a_message(self):
        for limit in (8, 12, 20, 63):
            with self.subTest(limit):
                subject = Daemon()
                self.addCleanup(subject.close)
                subject.limits = {resource.RLIMIT_NOFILE: (limit, limit)}
                with self.assertRaisesRegex(AssertionError, "ended with 1:(.|\n)*needs 64"):
                    subject.start()

    def test_idle_connections_take_no_processor_and_nobodys_place(self):
        subject = self.start_with(64)
        good = Publisher(subject.counts, source="good").connected()
        self.addCleanup(good.close)
        at_rest = len(os.listdir(f"/proc/{subject.process.pid}/fd"))
        for endpoint in (subject.http, subject.counts, subject.placements):
            with self.subTest(endpoint):
                idle = []
                host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
                for _ in range(200):
                    idle.append(socket.create_connection((host, int(port)), 5))
                eventually(lambda: subject.get("/healthz")[0] == 200, "answers")
                before = subject.metrics()("counts_messages_total")
                good.counts(LOAD)
                eventually(lambda: subject.metrics()("counts_messages_total") > before, "counted")
                busy = subject.usage()[0]
                start = time.monotonic()
                time.sleep(2)  # the processor's time over it is what is measured
                share = (subject.usage()[0] - busy) / (time.monotonic() - start)
                self.assertLess(share, 0.2, "spins")
                for connection in idle:
                    connection.close()
                eventually(
                    lambda: len(os.listdir(f"/proc/{subject.process.pid}/fd")) <= at_rest + 4,
                    "given back",
                    15,
                )

    def test_the_soft_limit_is_raised(self):
        subject = Daemon(mode="observe")
        self.addCleanup(self._end, subject)
        hard = min(4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
        subject.limits = {resource.RLIMIT_NOFILE: (64, hard)}
        subject.start()
        limits = Path(f"/proc/{subject.process.pid}/limits").read_text()
        row = next(line for line in limits.splitlines() if line.startswith("Max open files"))
        self.assertEqual(row.split()[3], str(hard))


class Stderr(DaemonTest):
    def test_a_log_that_nobody_reads_stops_nothing(self):
        reader, writer = os.pipe()
        self.addCleanup(os.close, reader)
        subject = Daemon(log={"level": "debug"})
        self.addCleanup(self._end, subject)
        subject.log_to = writer
        subject.start()
        os.close(writer)
        worker = Publisher(subject.counts).connected()
        self.addCleanup(worker.close)
        # Each is refused with a line; a pipe holds 64 KiB.
        for _ in range(3000):
            ask(subject.control(), "POST", "/v1/pause", {})
            if subject.process.poll() is not None:
                break
        self.assertEqual(subject.get("/healthz")[0], 200)
        os.set_blocking(reader, False)
        text = os.read(reader, 1 << 20)
        ask(subject.control(), "POST", "/v1/resume", {})
        text += os.read(reader, 1 << 20)
        self.assertRegex(text, rb"\d+ lines are missing here: nobody read them\n")
        self.assertEqual(subject.stop(), 0)


if __name__ == "__main__":
    unittest.main()
