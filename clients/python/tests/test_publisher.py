# SPDX-License-Identifier: Apache-2.0
import asyncio
import logging
import threading
import time
import unittest

import numpy as np
import zmq

from eplbd_client import CountsPublisher, CurveKeys, Placement, PlacementId, StateReporter
from fake_daemon import FakeDaemon

ONES = np.ones((2, 4), np.int64)


def counts_of(message, key="counts"):
    return np.frombuffer(message[key], "<u4").reshape(2, -1)


class Base(unittest.TestCase):
    def setUp(self):
        logging.getLogger("eplbd_client").setLevel(logging.CRITICAL)
        self.daemon = FakeDaemon()
        self.addCleanup(self.daemon.close)

    def publisher(self, **keys):
        keys = {"layers": 2, "logical_experts": 4, **keys}
        publisher = CountsPublisher("d", [self.daemon.counts_endpoint], "dp0", **keys)
        self.addCleanup(publisher.close)
        return publisher


class Publishing(Base):
    def test_running_totals(self):
        publisher = self.publisher()
        before = time.time()
        for i in range(3):
            self.assertTrue(publisher.publish(ONES * (i + 1), steps=2))
        messages = [self.daemon.receive() for _ in range(3)]
        self.assertEqual([sequence for sequence, _ in messages], [0, 1, 2])
        self.assertEqual([int(counts_of(m)[0, 0]) for _, m in messages], [1, 3, 6])
        self.assertEqual([m["steps"] for _, m in messages], [2, 2, 2])
        stamps = [m["ts"] for _, m in messages]
        self.assertEqual(stamps, sorted(set(stamps)))
        first = messages[0][1]
        self.assertEqual((first["kind"], first["source"]), ("cumulative", "dp0"))
        self.assertLessEqual(before - 1, first["since"])
        self.assertLessEqual(first["since"], first["ts"])
        self.assertEqual(len({m["epoch"] for _, m in messages}), 1)
        self.assertNotIn("gpu_tokens", first)

    def test_totals_wrap(self):
        publisher = self.publisher()
        publisher.publish(np.full((2, 4), 2**32 - 1))
        publisher.publish(ONES * 3)
        self.daemon.receive()
        self.assertEqual(int(counts_of(self.daemon.receive()[1])[1, 3]), 2)

    def test_running_placement_stays_named(self):
        publisher = self.publisher()
        publisher.publish(ONES)
        publisher.publish(ONES, running=PlacementId(7, 3))
        publisher.publish(ONES)
        named = [(m["term"], m["version"]) for _, m in (self.daemon.receive() for _ in range(3))]
        self.assertEqual(named, [(0, 0), (7, 3), (7, 3)])

    def test_physical_counts(self):
        publisher = self.publisher(gpus=2)
        placement = Placement(PlacementId(5, 1), np.array([[0, 1, 2, 3, 0, 0]] * 2), 4, 2)
        publisher.publish_physical(np.array([[1, 2, 3, 4, 5, 6]] * 2), placement)
        _, message = self.daemon.receive()
        self.assertEqual(counts_of(message)[0].tolist(), [12, 2, 3, 4])
        self.assertEqual(counts_of(message, "gpu_tokens")[0].tolist(), [6, 15])
        self.assertEqual((message["term"], message["version"]), (5, 1))

    def test_nothing_raises_into_the_engine(self):
        publisher = self.publisher()
        for bad in (None, "text", [[1, 2], [3]], np.ones((2, 5), int), np.ones((2, 4)), -ONES, 7):
            self.assertFalse(publisher.publish(bad))
        self.assertFalse(publisher.publish(ONES, steps="many"))
        self.assertFalse(publisher.publish(ONES, running=5))
        self.assertFalse(publisher.publish_physical(ONES, None))
        self.assertEqual(publisher.errors, 10)
        self.assertTrue(publisher.publish(ONES))
        sequence, message = self.daemon.receive()
        self.assertEqual((sequence, int(counts_of(message)[0, 0])), (0, 1))

    def test_nothing_blocks_while_no_daemon_is_there(self):
        self.daemon.stop()
        publisher = self.publisher(queue_bound=4)
        for _ in range(1000):
            publisher.publish(ONES, steps=3)
        self.assertFalse(publisher.connected)
        self.assertEqual(publisher.dropped, 996)
        self.daemon.start()
        messages = [self.daemon.receive() for _ in range(4)]
        self.assertEqual([s for s, _ in messages], [0, 1, 2, 3])
        self.assertEqual([int(counts_of(m)[0, 0]) for _, m in messages], [997, 998, 999, 1000])
        self.assertEqual(sum(m["steps"] for _, m in messages), 3000)

    def test_a_daemon_that_restarts(self):
        publisher = self.publisher()
        publisher.publish(ONES)
        self.daemon.receive()
        self.daemon.stop()
        deadline = time.monotonic() + 30
        while publisher.connected and time.monotonic() < deadline:
            time.sleep(0.005)
        self.assertFalse(publisher.connected)
        publisher.publish(ONES)
        self.daemon.start()
        sequence, message = self.daemon.receive()
        self.assertEqual((sequence, int(counts_of(message)[0, 0])), (1, 2))

    def test_idle_reports(self):
        publisher = self.publisher(idle_seconds=0.05)
        publisher.publish(ONES)
        messages = [self.daemon.receive()[1] for _ in range(4)]
        self.assertEqual([m["steps"] for m in messages], [1, 0, 0, 0])
        self.assertEqual(int(counts_of(messages[-1])[0, 0]), 1)
        self.assertGreater(messages[-1]["ts"], messages[0]["ts"] + 0.1)

    def test_threads_lose_nothing(self):
        publisher = self.publisher(queue_bound=2)
        threads = [
            threading.Thread(target=lambda: [publisher.publish(ONES) for _ in range(200)])
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        steps = total = 0
        last = -1
        while total < 800:
            sequence, message = self.daemon.receive()
            self.assertEqual(sequence, last + 1)
            last, total = sequence, int(counts_of(message)[0, 0])
            steps += message["steps"]
        self.assertEqual((total, steps), (800, 800))

    def test_close_sends_the_last_word(self):
        publisher = self.publisher()
        publisher.publish(ONES)
        self.daemon.receive()
        publisher.publish(ONES)
        publisher.close()
        publisher.close()
        self.assertEqual(int(counts_of(self.daemon.receive()[1])[0, 0]), 2)

    def test_asyncio(self):
        async def main():
            async with CountsPublisher(
                "d", [self.daemon.counts_endpoint], "a", layers=2, logical_experts=4
            ) as publisher:
                publisher.publish(ONES)
                return await asyncio.to_thread(self.daemon.receive)

        self.assertEqual(int(counts_of(asyncio.run(main())[1])[0, 0]), 1)

    def test_names(self):
        for name in ("", "x" * 129):
            with self.assertRaises(ValueError):
                CountsPublisher("d", ["tcp://127.0.0.1:1"], name, layers=1, logical_experts=1)
            with self.assertRaises(ValueError):
                CountsPublisher(name, ["tcp://127.0.0.1:1"], "s", layers=1, logical_experts=1)


class Reporting(Base):
    def reporter(self, repeat_seconds=60.0):
        reporter = StateReporter(
            "d", [self.daemon.counts_endpoint], "dp0", self.placement, repeat_seconds=repeat_seconds
        )
        self.addCleanup(reporter.close)
        return reporter

    def setUp(self):
        super().setUp()
        self.placement = Placement.initial(2, 4, 6, 2)

    def test_at_start_at_changes_and_by_the_timer(self):
        reporter = self.reporter(repeat_seconds=0.3)
        sequence, first = self.daemon.receive()
        self.assertEqual((sequence, first["type"], first["status"]), (0, "state", "idle"))
        self.assertEqual((first["slots"], first["gpus"], first["term"]), (6, 2, 0))
        self.assertEqual(len(first["physical_to_logical"]), 48)

        def next_that_is(status):
            while True:
                message = self.daemon.receive()[1]
                if message["status"] == status:
                    return message

        reporter.report(self.placement, "applying", layers_done=1)
        self.assertEqual(next_that_is("applying")["layers_done"], 1)
        reporter.report(self.placement, "failed", error="no room")
        failed = next_that_is("failed")
        self.assertEqual(failed["error"], "no room")
        self.assertNotIn("layers_done", failed)
        again = self.daemon.receive()[1]
        self.assertEqual((again["status"], again["error"]), ("failed", "no room"))
        self.assertGreater(again["ts"], failed["ts"])

    def test_answers_the_first_heartbeat_and_those_that_name_another(self):
        reporter = self.reporter()
        self.daemon.receive()
        reporter.heard(PlacementId(0, 0))
        self.daemon.receive()
        reporter.heard(PlacementId(0, 0))
        self.assertTrue(self.daemon.silent(0.1))
        while self.daemon.silent(0.02):  # a second after the last answer
            reporter.heard(PlacementId(4, 2))
        self.assertEqual(self.daemon.receive()[0], 2)
        reporter.heard(PlacementId(4, 2))
        self.assertTrue(self.daemon.silent(0.1))

    def test_tells_a_daemon_that_was_started_again(self):
        reporter = self.reporter()
        self.daemon.receive()
        self.daemon.stop()
        deadline = time.monotonic() + 30
        while reporter.connected and time.monotonic() < deadline:
            time.sleep(0.005)
        self.daemon.start()
        sequence, again = self.daemon.receive()
        self.assertEqual((sequence, again["type"]), (1, "state"))

    def test_unknown_status(self):
        reporter = self.reporter()
        reporter.report(self.placement, "happy")
        self.assertEqual(reporter.errors, 1)


@unittest.skipUnless(zmq.has("curve"), "libzmq without CURVE")
class Curve(unittest.TestCase):
    def test_keys(self):
        server, worker, stranger = zmq.curve_keypair(), zmq.curve_keypair(), zmq.curve_keypair()
        daemon = FakeDaemon(curve=server)
        self.addCleanup(daemon.close)

        def publisher(server_key):
            keys = CurveKeys(worker[0].decode(), worker[1].decode(), server_key.decode())
            made = CountsPublisher(
                "d", [daemon.counts_endpoint], "s", layers=2, logical_experts=4, curve=keys
            )
            self.addCleanup(made.close)
            made.publish(ONES)
            return made

        wrong = publisher(stranger[0])
        self.assertTrue(daemon.silent(0.5))
        self.assertFalse(wrong.connected)
        publisher(server[0])
        daemon.receive()

    def test_a_secret_is_not_printed(self):
        public, secret = (key.decode() for key in zmq.curve_keypair())
        self.assertNotIn(secret, repr(CurveKeys(public, secret, public)))
        with self.assertRaises(ValueError):
            CurveKeys(public, "short", public)


if __name__ == "__main__":
    unittest.main()
