# SPDX-License-Identifier: Apache-2.0
"""A published placement is a wish until the group says that it runs it."""

import math
import time
import unittest

import numpy as np

from harness import SHAPE, DaemonTest, ask, eventually
from workers import Follower, Publisher, initial_map, moves, skewed_load, violations

EXPERTS, GPUS = SHAPE["logical_experts"], SHAPE["gpus"]
INITIAL = initial_map(**SHAPE)


class ApplyProtocol(DaemonTest):
    def begin(self, **changes):
        self.subject = self.daemon(
            **{"workers": {"timeout": "30s", "apply_timeout": "1s"}, **changes}
        )
        self.counter = Publisher(self.subject.counts, source="dp0").connected()
        self.reporter = Publisher(self.subject.counts, source="head").connected()
        self.follower = Follower(self.subject.placements, held=((0, 0), INITIAL))
        for worker in (self.counter, self.reporter, self.follower):
            self.addCleanup(worker.close)
        self.report((0, 0), INITIAL, "idle")
        self.load = skewed_load(1, **SHAPE)

    def report(self, running, table, status, **keys):
        self.reporter.running = self.counter.running = running
        self.reporter.state(table, status, **keys)

    def count(self):
        self.counter.counts(self.load)

    def status(self):
        return self.subject.get_json("/api/v1/status")

    def update(self, timeout=10.0):
        eventually(lambda: self.count() or self.follower.poll(0.02), "an update", timeout)
        return self.follower.held

    def verdict(self, name):
        return self.subject.metrics().by_label("decisions_total", "verdict").get(name, 0)

    def expect_verdict(self, name, timeout=5.0):
        before = self.verdict(name)
        eventually(lambda: self.count() or self.verdict(name) > before + 1, f"verdict {name}", timeout)

    def wait_messages(self, identity, times, timeout=6.0):
        def seen():
            self.count()
            self.follower.poll(0.05)
            found = [m for m in self.follower.seen if (m["term"], m["version"]) == identity]
            return len(found) >= times

        eventually(seen, f"{identity} {times} times", timeout)

    def offer_inactive_gpus(self, identity, table):
        self.reporter.keys["features"] = ["inactive_gpus"]
        self.report(identity, table, "applied")

    def order_gpu(self, gpu, action):
        """As soon as the daemon has heard that it may."""
        body = {"gpu": gpu, "action": action}
        eventually(
            lambda: ask(self.subject.control(), "POST", "/v1/gpu", body)[0] == 200, f"{action} {gpu}")

    def test_applying_then_applied(self):
        self.begin()
        identity, table = self.update()
        self.expect_verdict("applying")
        self.report((0, 0), INITIAL, "applying", layers_done=2)
        self.expect_verdict("applying")
        self.assertEqual(self.subject.metrics()("apply_seconds_count"), 0)
        self.report(identity, table, "applied", apply_seconds=0.75)
        eventually(lambda: self.subject.metrics()("apply_seconds_count") == 1, "applied")
        self.assertAlmostEqual(self.subject.metrics()("apply_seconds_sum"), 0.75)
        self.assertEqual(self.subject.metrics()("apply_failures_total"), 0)

    def test_nothing_is_decided_while_it_is_applied(self):
        self.begin(workers={"timeout": "30s", "apply_timeout": "60s"})
        self.update()
        self.report((0, 0), INITIAL, "applying")
        self.load = skewed_load(2, **SHAPE, sigma=0.9)
        for _ in range(3):
            self.expect_verdict("applying")
        self.assertFalse(self.follower.poll(0))

    def test_failed_is_held_then_published_again(self):
        for status in ("failed", "refused"):
            with self.subTest(status):
                self.begin()
                identity, table = self.update()
                self.report((0, 0), INITIAL, status, error="out of memory on GPU 3")
                self.expect_verdict("apply_failed")
                self.assertEqual(self.subject.metrics()("apply_failures_total"), 1)
                self.assertIn("out of memory on GPU 3", self.subject.log())
                self.wait_messages(identity, 2)
                again = [m for m in self.follower.seen if m["version"] == identity[1]]
                self.assertEqual(again[0]["physical_to_logical"], again[1]["physical_to_logical"])
                self.report(identity, table, "applied")
                eventually(lambda: self.subject.metrics()("workers_behind") == 0 or self.count(), "")
                before = table
                self.load = skewed_load(22, **SHAPE, sigma=0.9)
                following, table = self.update()
                self.assertEqual(following, (identity[0], identity[1] + 1))
                self.assertEqual(violations(table, EXPERTS, GPUS, before), [])

    def test_not_applied_in_time_is_published_again_once_each_time(self):
        self.begin()
        identity, _ = self.update()
        started = time.monotonic()
        self.wait_messages(identity, 4)
        self.assertGreater(time.monotonic() - started, 2.2, "each after its timeout")
        self.assertGreater(self.verdict("apply_failed"), 0)
        self.assertEqual(self.subject.placement()[0], identity)

    def test_another_map_is_adopted_and_planned_from(self):
        self.begin()
        identity, table = self.update()
        self.report(identity, table, "applied")
        own = np.roll(INITIAL, 5, axis=1)  # a map that nobody published, under a name of ours
        self.report(identity, own, "idle")
        eventually(lambda: np.array_equal(self.subject.placement()[1], own), "adopted")
        self.load = skewed_load(7, **SHAPE, sigma=0.9)
        following, table = self.update()
        self.assertGreater(following, identity)
        self.assertEqual(self.follower.message["base_version"], identity[1])
        self.assertEqual(violations(table, EXPERTS, GPUS, own), [])

    def test_a_map_without_a_slot_for_some_expert_is_mended_at_once(self):
        self.begin(trigger={"imbalance": 50, "settle": 49})
        for own in (np.zeros_like(INITIAL), np.where(INITIAL == 5, 6, INITIAL)):
            running = self.follower.held[0]
            self.report(running, own, "idle")
            identity, table = self.update()
            self.assertGreater(identity, running)
            self.assertEqual(violations(table, EXPERTS, GPUS), [])
            self.report(identity, table, "applied")
            eventually(lambda: self.count() or self.subject.metrics()("workers_behind") == 0, "")

    def test_a_slot_out_of_range_is_named_until_it_is_gone(self):
        for expert in (EXPERTS, -2):
            with self.subTest(expert):
                self.begin(trigger={"imbalance": 50, "settle": 49})
                own = INITIAL.copy()
                own[2, 3] = expert
                self.report((0, 0), own, "idle")
                identity, table = self.update()
                self.assertEqual(self.follower.message["reason"], "repaired")
                self.assertEqual(violations(table, EXPERTS, GPUS), [])
                named = f"head reports 0.0 with a map that breaks a rule: layer 2: slot 3 holds expert {expert}"
                problems = lambda: self.subject.get_json("/api/v1/status")["problems"]
                self.assertIn(named, " ".join(problems()))
                self.assertEqual(self.subject.metrics().by_label("problems", "kind")["broken_map"], 1)
                self.report(identity, table, "applied")
                eventually(lambda: self.count() or not problems(), "no problem")

    def test_a_reporter_of_another_shape_that_fell_silent_is_forgotten(self):
        self.begin(workers={"timeout": "1s", "apply_timeout": "1s"})
        self.report((0, 0), initial_map(4, 32, 48), "idle", slots=48)
        self.expect_verdict("topology_mismatch")
        self.update()

    def test_a_group_that_restarts_is_brought_to_the_newest(self):
        self.begin()
        identity, table = self.update()
        self.report(identity, table, "applied")
        eventually(lambda: self.subject.metrics()("apply_seconds_count") == 1, "applied")
        self.counter.restart()
        self.reporter.restart()
        self.report((0, 0), INITIAL, "idle")
        joined = Follower(self.subject.placements)
        self.addCleanup(joined.close)
        self.assertTrue(joined.poll(2))
        self.assertEqual(joined.held[0], identity)
        np.testing.assert_array_equal(joined.held[1], table)
        self.expect_verdict("applying")
        self.report(identity, table, "applied")
        eventually(lambda: self.subject.metrics()("apply_seconds_count") == 2, "applied again")

    def test_a_report_above_what_we_know_starts_a_new_term(self):
        self.begin()
        future = int(time.time()) + 3600, 17
        own = np.roll(INITIAL, 3, axis=1)
        self.report(future, own, "idle")
        eventually(lambda: np.array_equal(self.subject.placement()[1], own), "adopted")
        self.follower.held = future, own
        (term, version), table = self.update()
        self.assertGreater(term, future[0])
        self.assertEqual(version, 18)
        self.assertEqual(violations(table, EXPERTS, GPUS, own), [])

    def test_a_report_over_a_day_ahead_is_ignored(self):
        self.begin()
        day = 86_400
        for ahead, adopted in ((day + 3600, False), (day - 3600, True)):
            own = int(time.time()) + ahead, 17
            self.report(own, np.roll(INITIAL, 3, axis=1), "idle")
            if adopted:
                eventually(lambda: self.subject.placement()[0] == own, "adopted")
            else:
                rejected = lambda: self.subject.metrics().by_label("counts_rejected_total", "reason")
                eventually(lambda: rejected() == {"bad_timestamp": 1}, "rejected")
                self.assertEqual(self.subject.placement()[0], (0, 0))

    def test_what_nobody_reported_is_made_known_under_a_new_term(self):
        """Sources name a placement above ours, and nobody tells its map."""
        self.begin(trigger={"imbalance": 50, "settle": 49})
        future = int(time.time()) + 100, 7
        self.subject.kill()  # without a report within workers.timeout, counts are believed
        self.subject.start()
        self.counter.connected()
        self.counter.running = future
        eventually(lambda: self.count() or self.follower.poll(0.02), "a placement")
        self.assertEqual(self.follower.held[0], (future[0] + 1, 8))
        self.assertEqual(self.follower.message["reason"], "recovered")
        np.testing.assert_array_equal(self.follower.held[1], INITIAL)

    def test_a_lost_gpu_is_no_source(self):
        self.begin()
        self.offer_inactive_gpus((0, 0), INITIAL)
        self.order_gpu(2, "lost")
        identity, table = self.update()
        moved = np.frombuffer(self.follower.message["moves"], "<i4").reshape(-1, 4)
        self.assertFalse(np.any((moved[:, 3] >= 0) & (moved[:, 3] // 5 == 2)))
        self.assertEqual(violations(table, EXPERTS, GPUS, INITIAL, gpus_down=[2]), [])
        self.assertEqual({tuple(move) for move in moved[:, :3].tolist()}, moves(table, INITIAL, GPUS))
        for layer, row in enumerate(INITIAL):  # what no other GPU holds comes from disk
            for expert in set(row[10:15]) - set(np.delete(row, range(10, 15))):
                mine = moved[(moved[:, 0] == layer) & (moved[:, 2] == expert), 3]
                self.assertEqual(set(mine.tolist()), {-1})

    def test_another_shape_is_a_topology_mismatch(self):
        self.begin()
        self.report((0, 0), initial_map(4, 32, 48), "idle", slots=48)
        self.expect_verdict("topology_mismatch")
        self.assertFalse(self.follower.poll(0))
        self.report((0, 0), INITIAL, "idle")
        self.update()

    def test_counts_of_an_engine_that_runs_something_else_leave_it_behind(self):
        self.begin()
        identity, table = self.update()
        self.report(identity, table, "applied")
        self.counter.running = (0, 0)
        eventually(lambda: self.count() or self.subject.metrics()("workers_behind") == 1, "behind")
        self.counter.running = identity
        eventually(lambda: self.count() or self.subject.metrics()("workers_behind") == 0, "level")

    def test_a_gpu_is_drained_and_restored(self):
        self.begin()
        identity, table = self.update()
        self.report(identity, table, "applied")
        eventually(lambda: self.subject.metrics()("apply_seconds_count") == 1, "applied")
        body = {"gpu": 3, "action": "drain"}
        status, text, _ = ask(self.subject.control(), "POST", "/v1/gpu", body)
        self.assertEqual(status, 409, text)
        self.assertIn("inactive_gpus", text)
        self.offer_inactive_gpus(identity, table)
        self.order_gpu(3, "drain")
        before = table
        identity, table = self.update()
        message = self.follower.message
        self.assertEqual(np.frombuffer(message["gpus_down"], "<i4").tolist(), [3])
        self.assertEqual(message["reason"], "gpu")
        self.assertEqual(violations(table, EXPERTS, GPUS, before, gpus_down=[3]), [])
        self.report(identity, table, "applied")
        eventually(lambda: self.count() or self.subject.metrics()("workers_behind") == 0, "level")
        self.subject.kill()
        self.subject.start()
        self.assertEqual(self.subject.get_json("/api/v1/status")["gpus_down"], [3])
        for worker in (self.counter, self.reporter):
            worker.connected()
        self.report(identity, table, "applied")
        body["action"] = "restore"
        status, text, _ = ask(self.subject.control(), "POST", "/v1/gpu", body)
        self.assertEqual(status, 200, text)
        before = table
        identity, table = self.update()
        self.assertEqual(self.follower.message["gpus_down"], b"")
        self.assertEqual(violations(table, EXPERTS, GPUS, before), [])

    def test_modes(self):
        self.begin(mode="shadow")
        self.expect_verdict("would_update")
        self.assertFalse(self.follower.poll(0.2))
        self.assertEqual(self.subject.placement()[0], (0, 0))
        # What would have been done, from what to what, and how that would do beside what is.
        status = eventually(
            lambda: self.count() or ((s := self.status())["history"] and s["history"][-1][6] and s),
            "a curve of what would be",
        )
        self.assertLess(status["imbalance_would_be"], status["imbalance"])
        would = status["would_updates"][0]
        self.assertEqual(would["moves"], status["would_update"]["moves"])
        self.assertTrue(would["moved"])
        self.assertEqual("would_update", status["events"][0]["kind"])
        self.assertIn("would be", [fact["name"] for fact in status["facts"]])
        later = self.subject.get_json(f"/api/v1/status?since={status['ts'] + 3600}")
        self.assertEqual([[]] * 3, [later[key] for key in ("history", "events", "would_updates")])
        self.assertEqual(400, self.subject.get("/api/v1/status?since=1h")[0])
        self.subject.reload(mode="observe")
        self.expect_verdict("observing")
        self.assertIsNone(self.status()["imbalance_would_be"])
        kinds = [event["kind"] for event in self.status()["events"]]
        self.assertEqual({"would_update", "reload", "mode"}, set(kinds))
        self.subject.reload(mode="active")
        self.update()

    def test_orders_publish_in_active_mode_only(self):
        for mode in ("shadow", "observe"):
            with self.subTest(mode):
                self.begin(mode=mode)
                eventually(lambda: self.count() or self.subject.metrics()("workers") == 1, "counts")
                own = {"physical_to_logical_map": np.roll(INITIAL, 5, axis=1).tolist()}
                for order, body in (("rebalance", {}), ("import", own), ("rollback", {"version": 0})):
                    path = f"/v1/{order}"
                    status, text, _ = ask(self.subject.control(), "POST", path, body)
                    self.assertEqual(status, 409, text)
                    self.assertIn(mode, text)
                status, _, _ = ask(self.subject.control(), "POST", "/v1/rebalance", {"dry_run": True})
                self.assertEqual(status, 200)
                self.assertFalse(self.follower.poll(0.3))
                self.assertEqual(self.subject.placement()[0], (0, 0))

    def test_too_few_tokens(self):
        self.begin(trigger={"min_tokens": 10**9})
        self.expect_verdict("too_few_tokens")
        self.assertFalse(self.follower.poll(0))

    def test_no_counts(self):
        self.begin()
        eventually(lambda: self.verdict("no_counts") > 2, "verdict no_counts")

    def test_updates_per_hour(self):
        self.begin(limits={"updates_per_hour": 1})
        identity, table = self.update()
        self.report(identity, table, "applied")
        self.load = skewed_load(9, **SHAPE, sigma=0.9)
        self.expect_verdict("rate_limited")
        self.assertFalse(self.follower.poll(0))

    def test_names_that_rise_again_and_again_go_out_seldom(self):
        """Else who reports them moves the weights of all others at its pace."""
        self.begin(mode="observe")
        liar = Publisher(self.subject.counts, source="liar").connected()
        self.addCleanup(liar.close)
        names = set()
        start = time.monotonic()
        for number in range(1, 21):
            liar.running = (int(time.time()) + number, number)
            liar.state(np.roll(INITIAL, 5 * number, axis=1), "applied")

            def told():
                problems = " ".join(self.subject.get_json("/api/v1/status")["problems"])
                names.add(self.subject.placement()[0])
                return liar.running in names or f"{liar.running[0]}.{number}" in problems

            eventually(told, "adopted: announced, or named as a problem")
        self.follower.poll(0)
        names |= {(beat["term"], beat["version"]) for beat in self.follower.heartbeats}
        took = time.monotonic() - start
        self.assertLessEqual(len(names - {(0, 0)}), 1 + math.log2(took / 5 + 1))
        self.report((0, 0), INITIAL, "idle")
        eventually(lambda: self.subject.placement()[0] == liar.running, "in its turn", 60)

    def test_moves_are_limited(self):
        self.begin(limits={"max_moves": 3, "max_moves_per_gpu": 1})
        _, table = self.update()
        moved = np.frombuffer(self.follower.message["moves"], "<i4").reshape(-1, 4)
        self.assertLessEqual(len(moved), 3)
        self.assertLessEqual(np.bincount(moved[:, 1] // 5).max(), 1)
        self.assertEqual(violations(table, EXPERTS, GPUS, INITIAL), [])


if __name__ == "__main__":
    unittest.main()
