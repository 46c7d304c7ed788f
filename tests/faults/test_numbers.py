# SPDX-License-Identifier: Apache-2.0
"""Every number of every message at its edges: whatever it says, the next honest message counts at
once, and no figure that is shown is lost for good."""

import json
import math
import unittest

import numpy as np

from harness import QUICK, SHAPE, DaemonTest, eventually, merged
from workers import Follower, Publisher, initial_map, skewed_load

LOAD = skewed_load(1, **SHAPE)
LARGEST = np.finfo(np.float64).max
WHOLE = (0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**62, 2**63 - 1, 2**63, 2**64 - 1, -1, -(2**63))
REAL = (0.0, -0.0, 0.5, 5e-324, 1e18, -1e18, LARGEST, -LARGEST, math.inf, -math.inf, math.nan)
VALUES = WHOLE + REAL

COUNTS = ("epoch", "since", "ts", "steps", "term", "version", "v")
STATE = ("epoch", "ts", "term", "version", "v", "layers_done", "apply_seconds", "layers",
         "logical_experts", "slots", "gpus")


class Numbers(DaemonTest):
    def setUp(self):
        # Long enough that nothing is forgiven for having gone silent.
        self.subject = self.daemon(**merged(QUICK, {"workers": {"timeout": "10m"}}))
        self.worker = Publisher(self.subject.counts, source="honest").connected()
        self.follower = Follower(self.subject.placements)
        self.liar = Publisher(self.subject.counts, source="liar", kind="delta").connected()
        for peer in (self.worker, self.follower, self.liar):
            self.addCleanup(peer.close)
        self.liars = 0

    def another_liar(self):
        self.liars += 1
        self.liar.keys["source"] = f"liar{self.liars}"
        self.liar.restart()

    def judged(self):
        metrics = self.subject.metrics()
        rejected = sum(metrics.by_label("counts_rejected_total", "reason").values())
        taken = ("counts_messages_total", "state_messages_total", "counts_duplicates_total")
        return rejected + sum(metrics(name) for name in taken)

    def lie(self, send):
        before = self.judged()
        send()
        eventually(lambda: self.judged() > before, "judged")

    def honest_counts(self):
        name = "counts_tokens_total"
        before = self.subject.metrics()(name)
        self.worker.counts(LOAD)
        eventually(lambda: self.subject.metrics()(name) == before + LOAD.sum(), "counted at once")

    def figures_are_numbers(self):
        for (name, labels), value in self.subject.metrics().samples.items():
            if not any(label == "le" for label, _ in labels):
                self.assertTrue(math.isfinite(value), (name, labels, value))
                self.assertLess(abs(value), 1e16, (name, labels))
        json.dumps(self.subject.get_json("/api/v1/status"), allow_nan=False)

    def a_new_load_is_answered(self, seed):
        load = skewed_load(seed, **SHAPE, sigma=1.2)
        before = self.follower.held[0]

        def newer():
            self.worker.counts(load)
            self.follower.poll(0.02)
            self.worker.running = self.follower.held[0]
            return self.follower.held[0] > before

        eventually(newer, "an update", 30)
        self.worker.state(self.follower.held[1], status="applied")

    def test_counts(self):
        for key in COUNTS:
            for value in VALUES:
                with self.subTest(key=key, value=value):
                    self.another_liar()
                    # Of tokens none: what it says beside them must not matter.
                    self.lie(lambda: self.liar.counts(np.zeros_like(LOAD), **{key: value}))
                    self.honest_counts()
            self.figures_are_numbers()
        self.a_new_load_is_answered(3)

    def test_cells(self):
        for key in ("counts", "gpu_tokens"):
            shape = LOAD.shape if key == "counts" else (SHAPE["layers"], SHAPE["gpus"])
            for value in (0, 1, 2**31 - 1, 2**31, 2**32 - 1):
                with self.subTest(key=key, value=value):
                    self.another_liar()
                    cells = np.full(shape, value, np.uint32).astype("<u4").tobytes()
                    message = {**self.liar.message(np.zeros_like(LOAD)), key: cells}
                    self.lie(lambda: self.liar.send(message))
                    self.honest_counts()
        self.figures_are_numbers()

    def test_sequences(self):
        for value in (0, 1, 2**31, 2**32 - 1, 2**62, 2**63, 2**64 - 1):
            with self.subTest(value):
                self.another_liar()
                self.lie(lambda: self.liar.counts(np.zeros_like(LOAD)))
                message = self.liar.message(np.zeros_like(LOAD))
                self.lie(lambda: self.liar.send(message, sequence=value))
                self.honest_counts()
                self.figures_are_numbers()

    def test_state(self):
        table = initial_map(**SHAPE)
        self.a_new_load_is_answered(2)
        for key in STATE:
            for value in VALUES:
                with self.subTest(key=key, value=value):
                    self.another_liar()
                    self.lie(lambda: self.liar.state(table, **{key: value}))
                    self.honest_counts()
            # What the group itself reports is believed again at once.
            held, own = self.follower.held
            self.worker.running = held
            self.worker.state(own, status="applied")
            self.figures_are_numbers()
            self.a_new_load_is_answered(10 + STATE.index(key))


if __name__ == "__main__":
    unittest.main()
