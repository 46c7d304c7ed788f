# SPDX-License-Identifier: Apache-2.0
"""A jump of the load, told by several workers one after the other, within a long cooldown."""

import unittest

import numpy as np

from harness import SHAPE, DaemonTest
from workers import Follower, Publisher, imbalance, initial_map, skewed_load

SOURCES = 4
PAUSE = 0.05  # seconds between two reports of different sources


class Jump(DaemonTest):
    def setUp(self):
        self.subject = self.daemon(trigger={"cooldown": "300s", "interval": "20ms"})
        self.sources = [
            Publisher(self.subject.counts, source=f"dp{i}").connected() for i in range(SOURCES)
        ]
        for source in self.sources:
            self.addCleanup(source.close)
        self.sources[0].state(initial_map(**SHAPE))
        self.follower = Follower(self.subject.placements, held=((0, 0), initial_map(**SHAPE)))
        self.addCleanup(self.follower.close)
        self.random = np.random.default_rng(3)

    def rounds(self, load, most):
        """Every source reports in its turn, until a placement comes: after how many reports."""
        for report in range(1, most * SOURCES + 1):
            drawn = [self.random.multinomial(row.sum(), row / row.sum()) for row in load]
            self.sources[report % SOURCES].counts(drawn)
            if self.follower.poll(PAUSE):
                identity, table = self.follower.held
                for source in self.sources:
                    source.running = identity
                self.sources[0].state(table, "applied")
                return report
        return None

    def test_it_is_answered_once_all_have_told_of_it(self):
        first, second, third = (skewed_load(seed, **SHAPE, sigma=0.9) for seed in (1, 2, 3))
        self.assertIsNotNone(self.rounds(first, 100))
        self.assertIsNone(self.rounds(first, 20), "the cooldown holds what is no jump")
        for load in (second, third, first):
            reports = self.rounds(load, 100)
            self.assertIsNotNone(reports, "no answer to the jump")
            self.assertGreaterEqual(reports, SOURCES)
            self.assertLess(imbalance(load, self.follower.held[1], SHAPE["gpus"]), 1.15)
            self.assertIsNone(self.rounds(load, 10), "one answer is enough")


if __name__ == "__main__":
    unittest.main()
