# SPDX-License-Identifier: Apache-2.0
"""Counts in, placement out, over restarts and a lost disk."""

import time
import unittest

import numpy as np

from harness import SHAPE, DaemonTest, eventually
from workers import (
    Follower,
    Publisher,
    imbalance,
    initial_map,
    moves,
    skewed_load,
    violations,
)

EXPERTS, GPUS = SHAPE["logical_experts"], SHAPE["gpus"]


class Group:
    """Four publishers, of which the first tells the state too, and one follower."""

    def __init__(self, test, daemon, table=None, running=(0, 0)):
        self.table = initial_map(**SHAPE) if table is None else table
        self.daemon = daemon
        kinds = ("cumulative", "delta", "cumulative", "delta")
        self.publishers = [
            Publisher(daemon.counts, source=f"dp{i}", kind=kind).connected()
            for i, kind in enumerate(kinds)
        ]
        self.reporter = Publisher(daemon.counts, source="dp0").connected()
        self.follower = Follower(daemon.placements, held=(running, self.table))
        for worker in (*self.publishers, self.reporter, self.follower):
            test.addCleanup(worker.close)
        self.run(running, self.table)

    def run(self, running, table, status="idle"):
        self.table = table
        for publisher in (*self.publishers, self.reporter):
            publisher.running = running
        self.reporter.state(table, status)

    def count(self, load, rounds=1):
        for _ in range(rounds):
            for publisher in self.publishers:
                publisher.counts(load // 4)

    def follow(self, load, timeout=10.0):
        """Publishes until a newer placement comes; applies it. The map that it replaces."""
        deadline = time.monotonic() + timeout
        while not self.follower.poll(0.05):
            if time.monotonic() > deadline:
                raise AssertionError("no placement came")
            self.count(load)
        before = self.table
        self.run(*self.follower.held, "applied")
        return before

    def settle(self, load):
        """Follows until the daemon is content with the load."""

        def balanced():
            self.count(load)
            if self.follower.poll(0.05):
                self.run(*self.follower.held, "applied")
            verdicts = self.daemon.metrics().by_label("decisions_total", "verdict")
            return verdicts.get("balanced", 0) > self.balanced_before + 5

        self.balanced_before = self.daemon.metrics().by_label(
            "decisions_total", "verdict"
        ).get("balanced", 0)
        eventually(balanced, "the daemon finds the group balanced")


class EndToEnd(DaemonTest):
    def test_first_update(self):
        daemon = self.daemon()
        group = Group(self, daemon)
        load = skewed_load(1, **SHAPE)
        started = time.time()
        before = group.follow(load)

        message, ((term, version), table) = group.follower.message, group.follower.held
        self.assertEqual(version, 1)
        self.assertLessEqual(started - 2, term)
        self.assertLessEqual(term, time.time() + 2)
        self.assertEqual(message["base_version"], 0)
        self.assertIn(message["reason"], ("initial", "threshold"))
        self.assertEqual({k: message[k] for k in SHAPE}, SHAPE)
        self.assertEqual(violations(table, EXPERTS, GPUS, before), [])
        self.assertLess(imbalance(load, table, GPUS), imbalance(load, before, GPUS))
        self.assertAlmostEqual(
            message["imbalance_before"], imbalance(load, before, GPUS), delta=0.01
        )
        self.assertAlmostEqual(message["imbalance_after"], imbalance(load, table, GPUS), delta=0.01)

        changed = np.nonzero((table != before).any(1))[0].tolist()
        self.assertEqual(sorted(np.frombuffer(message["changed_layers"], "<i4")), changed)
        told = np.frombuffer(message["moves"], "<i4").reshape(-1, 4)
        self.assertEqual({tuple(m[:3]) for m in told.tolist()}, moves(table, before, GPUS))
        for layer, _, expert, source in told:
            self.assertEqual(before[layer, source], expert)
        self.assertEqual(message["gpus_down"], b"")

        group.settle(load)
        metrics = daemon.metrics()
        self.assertLess(metrics("imbalance"), 1.10)
        self.assertAlmostEqual(metrics("imbalance"), imbalance(load, group.table, GPUS), delta=0.01)
        self.assertAlmostEqual(metrics("balancedness"), 1 / metrics("imbalance"), delta=1e-6)
        self.assertEqual(metrics("placement_version"), group.follower.held[0][1])
        self.assertEqual(metrics("placement_term"), term)
        self.assertEqual(metrics("workers"), 4)
        self.assertEqual(metrics("workers_behind"), 0)
        self.assertEqual(metrics.by_label("counts_rejected_total", "reason"), {})
        self.assertEqual(metrics("counts_lost_total"), 0)
        self.assertEqual(metrics("counts_duplicates_total"), 0)

    def test_late_subscriber_gets_the_same_placement(self):
        daemon = self.daemon()
        group = Group(self, daemon)
        load = skewed_load(2, **SHAPE)
        group.follow(load)
        group.settle(load)
        late = Follower(daemon.placements)
        self.addCleanup(late.close)
        self.assertTrue(late.poll(2))
        self.assertEqual(late.held[0], group.follower.held[0])
        np.testing.assert_array_equal(late.held[1], group.follower.held[1])
        np.testing.assert_array_equal(daemon.placement()[1], late.held[1])
        self.assertEqual(daemon.placement()[0], late.held[0])

    def test_the_initial_placement_is_served_too(self):
        daemon = self.daemon()
        early = Follower(daemon.placements)
        self.addCleanup(early.close)
        eventually(lambda: early.poll(0.05) or early.seen, "the initial placement")
        message = early.seen[0]
        self.assertEqual((message["term"], message["version"]), (0, 0))
        flat = np.frombuffer(message["physical_to_logical"], "<i4")
        np.testing.assert_array_equal(flat.reshape(4, 40), initial_map(**SHAPE))

    def test_restart_goes_on_with_the_same_placement(self):
        for how in ("stop", "kill"):
            with self.subTest(how):
                daemon = self.daemon()
                group = Group(self, daemon)
                load = skewed_load(3, **SHAPE)
                group.follow(load)
                group.settle(load)
                identity, table = daemon.placement()
                if how == "stop":
                    self.assertEqual(daemon.stop(), 0)
                else:
                    daemon.kill()
                daemon.start()
                self.assertEqual(daemon.placement()[0], identity)
                np.testing.assert_array_equal(daemon.placement()[1], table)
                late = Follower(daemon.placements)
                self.addCleanup(late.close)
                self.assertTrue(late.poll(2))
                self.assertEqual(late.held[0], identity)
                # Another load: the next version of the same term, planned from what runs.
                group.run(identity, group.table)
                before = group.follow(skewed_load(33, **SHAPE, sigma=0.8), timeout=20)
                self.assertEqual(group.follower.held[0], (identity[0], identity[1] + 1))
                self.assertEqual(violations(group.table, EXPERTS, GPUS, before), [])

    def test_lost_state_is_adopted_from_the_workers(self):
        daemon = self.daemon()
        group = Group(self, daemon)
        load = skewed_load(4, **SHAPE)
        group.follow(load)
        group.settle(load)
        old, table = group.follower.held
        daemon.kill()
        daemon.forget()
        daemon.start()
        group.reporter.connected()
        group.reporter.state(table)

        def adopted():
            group.count(load)
            return np.array_equal(daemon.placement()[1], table)

        eventually(adopted, "the map that workers run is in force")
        before = group.follow(skewed_load(44, **SHAPE, sigma=0.8), timeout=20)
        np.testing.assert_array_equal(before, table)
        self.assertGreater(group.follower.held[0][0], old[0])
        self.assertEqual(violations(group.table, EXPERTS, GPUS, before), [])
        eventually(lambda: daemon.metrics()("workers_behind") == 0 or group.count(load),
                   "all workers run the new placement")

    def test_group_without_state_reports_is_taken_at_its_counts_word(self):
        daemon = self.daemon()
        publishers = [Publisher(daemon.counts, source=f"dp{i}").connected() for i in range(2)]
        follower = Follower(daemon.placements, held=((0, 0), initial_map(**SHAPE)))
        for worker in (*publishers, follower):
            self.addCleanup(worker.close)
        load = skewed_load(5, **SHAPE)

        def count():
            for publisher in publishers:
                publisher.counts(load)

        eventually(lambda: count() or follower.poll(0.05), "an update")
        eventually(
            lambda: count() or daemon.metrics().by_label("decisions_total", "verdict").get("applying"),
            "verdict applying",
        )
        for publisher in publishers:
            publisher.running = follower.held[0]

        def applied():
            count()
            return daemon.metrics()("workers_behind") == 0

        eventually(applied, "all workers run the placement")
        eventually(lambda: daemon.metrics()("apply_seconds_count") >= 1, "it counts as applied")

    def test_heartbeats(self):
        daemon = self.daemon()
        follower = Follower(daemon.placements)
        self.addCleanup(follower.close)
        follower.poll(3.5)
        self.assertGreaterEqual(len(follower.heartbeats), 2)
        first, last = follower.heartbeats[0], follower.heartbeats[-1]
        self.assertEqual((first["term"], first["version"], first["mode"]), (0, 0, "active"))
        seconds = (last["ts"] - first["ts"]) / (len(follower.heartbeats) - 1)
        self.assertAlmostEqual(seconds, 1.0, delta=0.2)


if __name__ == "__main__":
    unittest.main()
