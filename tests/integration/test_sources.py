# SPDX-License-Identifier: Apache-2.0
"""Gaps, repeats, restarts, conflicts, scopes: counted exactly, and what becomes of the load."""

import random
import time
import unittest

import numpy as np

from harness import SHAPE, DaemonTest, eventually
from workers import Publisher, imbalance, initial_map, skewed_load

LOAD = skewed_load(1, **SHAPE)
TOKENS = int(LOAD.sum())
NAMES = ("counts_messages_total", "counts_tokens_total", "counts_lost_total",
         "counts_duplicates_total", "source_restarts_total", "source_conflicts_total")


class Sources(DaemonTest):
    def setUp(self):
        self.subject = self.daemon(mode="observe", workers={"timeout": "30s"})

    def forget_soon(self):
        """A source that is silent for two seconds is gone. Only where a test wants that: it may stall."""
        self.subject.reload(workers={"timeout": "2s"})

    def publisher(self, **keys):
        publisher = Publisher(self.subject.counts, **keys).connected()
        self.addCleanup(publisher.close)
        return publisher

    def figures(self):
        metrics = self.subject.metrics()
        found = {name.split("_")[1]: metrics(name) for name in NAMES}
        found["rejected"] = metrics.by_label("counts_rejected_total", "reason")
        return found

    def expect(self, **wanted):
        def reached():
            found = self.figures()
            return all(found[key] == value for key, value in wanted.items())

        try:
            eventually(reached, "")
        except AssertionError:
            raise AssertionError(f"wanted {wanted}, found {self.figures()}") from None

    def test_cumulative_loses_nothing_by_a_gap(self):
        worker = self.publisher()
        worker.counts(LOAD)
        for _ in range(3):
            worker.message(LOAD)  # made, counted on, never sent
            worker.sequence += 1
        worker.counts(LOAD)
        self.expect(tokens=5 * TOKENS, lost=3, duplicates=0, rejected={})

    def test_delta_loses_what_was_in_the_gap(self):
        worker = self.publisher(kind="delta")
        worker.counts(LOAD)
        worker.sequence += 3
        worker.counts(LOAD)
        self.expect(tokens=2 * TOKENS, lost=3, duplicates=0, rejected={})

    def test_repeats(self):
        for kind in ("cumulative", "delta"):
            with self.subTest(kind):
                worker = self.publisher(source=kind, kind=kind)
                before = self.figures()
                message = worker.counts(LOAD)
                worker.send(message, sequence=0)
                worker.counts(LOAD)
                worker.send(message, sequence=0)
                self.expect(
                    tokens=before["tokens"] + 2 * TOKENS,
                    duplicates=before["duplicates"] + 2,
                    lost=0,
                    rejected={},
                )

    def test_counters_wrap(self):
        worker = self.publisher()
        worker.totals = np.full(LOAD.shape, 2**32 - 5, "<u4")
        worker.sequence = 7  # not its first: after a restart of the daemon, say
        worker.counts(np.zeros_like(LOAD), since=time.time() - 3600)  # too old: a baseline
        self.expect(messages=1, tokens=0)
        worker.counts(LOAD)
        self.expect(messages=2, tokens=TOKENS, rejected={})

    def test_first_sight(self):
        now = time.time()
        young, old = self.publisher(source="young"), self.publisher(source="old")
        for worker, since in ((young, now - 60), (old, now - 31 * 60)):
            worker.sequence = 5
            worker.counts(LOAD, since=since)
        self.expect(messages=2, tokens=TOKENS, lost=0)
        old.counts(LOAD)
        self.expect(messages=3, tokens=2 * TOKENS, lost=0, rejected={})

    def test_a_gap_of_over_thirty_minutes_is_a_baseline(self):
        worker = self.publisher()
        now = time.time()
        worker.counts(LOAD, ts=now, since=now - 1)
        worker.counts(LOAD, ts=now + 29 * 60)
        self.expect(tokens=2 * TOKENS)
        worker.counts(LOAD, ts=now + 60 * 60)
        self.expect(messages=3, tokens=2 * TOKENS)
        worker.counts(LOAD, ts=now + 60 * 60 + 1)
        self.expect(messages=4, tokens=3 * TOKENS, rejected={})

    def test_restart_and_conflict(self):
        worker = self.publisher()
        for _ in range(3):
            worker.counts(LOAD)
        old_epoch = worker.epoch
        worker.restart()
        worker.counts(LOAD)
        self.expect(tokens=4 * TOKENS, restarts=1, lost=0, conflicts=0)
        # The old one is still there: a smaller epoch loses while the newer is live.
        other = self.publisher()
        other.epoch, other.sequence = old_epoch, 3
        other.counts(LOAD)
        self.expect(tokens=4 * TOKENS, restarts=1, conflicts=1, rejected={"source_conflict": 1})

    def test_smaller_epoch_wins_after_silence(self):
        self.forget_soon()
        worker = self.publisher()
        worker.counts(LOAD)
        self.expect(tokens=TOKENS)
        other = self.publisher()
        other.epoch = worker.epoch - 10**9
        deadline = time.monotonic() + 6
        while self.figures()["tokens"] == TOKENS and time.monotonic() < deadline:
            other.counts(LOAD)
            time.sleep(0.1)
        found = self.figures()
        self.assertGreater(found["tokens"], TOKENS)
        self.assertGreaterEqual(found["conflicts"], 10)  # two seconds of being told no

    def test_global_scope(self):
        first, second = (self.publisher(source=s, scope="global") for s in ("g0", "g1"))
        first.counts(LOAD)
        self.expect(tokens=TOKENS)
        second.counts(LOAD)
        self.expect(tokens=TOKENS, rejected={"scope_conflict": 1})
        local = self.publisher(source="l0")
        local.counts(LOAD)
        self.expect(tokens=TOKENS, rejected={"scope_conflict": 2})
        first.counts(LOAD)
        self.expect(tokens=2 * TOKENS)

    def test_another_global_source_after_silence(self):
        self.forget_soon()
        first, second = (self.publisher(source=s, scope="global", kind="delta") for s in "ab")
        first.counts(LOAD)
        self.expect(tokens=TOKENS)
        eventually(lambda: second.counts(LOAD) and self.figures()["tokens"] > TOKENS,
                   "the second one counts", 6, poll=0.1)
        before = self.figures()
        first.counts(LOAD)
        eventually(lambda: self.figures()["rejected"] != before["rejected"], "the first one does not")
        self.assertEqual(self.figures()["tokens"], before["tokens"])

    def test_engines_are_followed_one_at_a_time(self):
        self.forget_soon()
        first, second = (self.publisher(source=s, engine=s, kind="delta") for s in "ab")
        first.counts(LOAD)
        self.expect(tokens=TOKENS)
        second.counts(LOAD)
        second.state(initial_map(**SHAPE))
        self.expect(tokens=TOKENS, rejected={"wrong_engine": 2})
        eventually(lambda: second.counts(LOAD) and self.figures()["tokens"] > TOKENS,
                   "the second one is followed after silence", 6, poll=0.1)
        tokens = self.figures()["tokens"]
        self.subject.reload(workers={"timeout": "2s", "engine": "a"})
        second.counts(LOAD)
        first.counts(LOAD)  # the configured one, at once
        self.expect(tokens=tokens + TOKENS)

    def test_source_limit(self):
        subject = self.subject = self.daemon(mode="observe", limits={"sources": 3})
        workers = [self.publisher(source=f"s{i}") for i in range(5)]
        for worker in workers:
            worker.counts(LOAD)
        self.expect(tokens=3 * TOKENS, rejected={"too_many_sources": 2})
        self.assertEqual(subject.metrics()("workers"), 3)

    def test_measured_imbalance(self):
        worker = self.publisher()
        received = np.full((SHAPE["layers"], SHAPE["gpus"]), 100)
        received[:, 0] = 300  # of a mean of 125
        worker.counts(LOAD, gpu_tokens=received)
        self.expect(tokens=TOKENS)
        metrics = self.subject.metrics()
        self.assertAlmostEqual(metrics("imbalance_measured"), 300 / 125, delta=0.01)
        modelled = imbalance(LOAD, initial_map(**SHAPE), SHAPE["gpus"])
        self.assertAlmostEqual(metrics("imbalance"), modelled, delta=0.01)

    def test_rows_that_disagree_are_inconsistent(self):
        worker = self.publisher(kind="delta")
        uneven = LOAD.copy()
        uneven[1] //= 2
        worker.counts(uneven)
        worker.counts(LOAD)
        self.expect(messages=2)
        self.assertEqual(self.subject.metrics()("counts_inconsistent_total"), 1)

    def test_idle_sources_stay_live_and_silent_ones_do_not(self):
        self.forget_soon()
        idle, silent = self.publisher(source="idle"), self.publisher(source="silent")
        for worker in (idle, silent):
            worker.counts(LOAD)
        eventually(lambda: self.subject.metrics()("workers") == 2, "two workers")

        def one_left():
            idle.counts(np.zeros_like(LOAD), steps=0)
            return self.subject.metrics()("workers") == 1

        eventually(one_left, "the silent one is gone", 6, poll=0.1)

    def test_lossy_transport_loses_no_token(self):
        """5% lost, 1% repeated, publishers restarted, ten minutes cut off (by their clocks).

        The windows that come of it: test_lossy.py.
        """
        rng = random.Random(5)
        workers = [self.publisher(source=f"dp{i}") for i in range(4)]
        clock = time.time()
        dropped = repeated = 0
        for step in range(300):
            clock += 1
            load = skewed_load(step // 50, **SHAPE)
            cut_off = 100 <= step < 110
            for i, worker in enumerate(workers):
                if step == 150 + i:
                    worker.restart()
                    worker.since = clock - 1
                message = worker.message(load, ts=clock + (600 if step >= 110 else 0))
                # What is lost before a first message cannot be known, and the last shall arrive.
                seen = step not in (0, 149 + i, 150 + i, 299)
                if cut_off or (rng.random() < 0.05 and seen):
                    worker.sequence += 1
                    dropped += 1
                    continue
                worker.send(message)
                if rng.random() < 0.01:
                    worker.send(message, sequence=worker.sequence - 1)
                    repeated += 1
        total = 4 * sum(int(skewed_load(s // 50, **SHAPE).sum()) for s in range(300))
        self.expect(tokens=total, lost=dropped, duplicates=repeated, restarts=4, rejected={})


if __name__ == "__main__":
    unittest.main()
