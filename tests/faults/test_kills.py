# SPDX-License-Identifier: Apache-2.0
"""Killed again and again, at any moment of its life, while the load moves and the group reports:
(term, version) never goes back, one names one map, and it goes on.

EPLBD_KILLS: how often; 40 where it is not set.
"""

import os
import random
import time
import unittest

import numpy as np

from harness import Daemon
from names import NamesTest

KILLS = int(os.environ.get("EPLBD_KILLS", "40"))
LONGEST_LIFE = 0.5  # seconds; it starts, adopts, decides and saves within less


class Kills(NamesTest):
    def setUp(self):
        self.begin(Daemon())
        self.random = random.Random(1)

    def serve(self, seconds):
        """The load moves, and what was published is applied and reported."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.random.random() < 0.1:
                self.another_load()
            self.worker.counts(self.load)
            self.look(0.005)
            if self.follower.held[0] == self.worker.running > (0, 0):
                self.worker.state(self.follower.held[1], status="applied")

    def run_another_placement(self):
        """As if another daemon had placed meanwhile: adopted, and what comes next is above it."""
        table = np.array(self.follower.held[1])
        table[:, [0, 1]] = table[:, [1, 0]]
        self.worker.running = (self.highest[0] + 1, self.highest[1] + 1)
        self.named[self.worker.running] = table.astype("<i4").tobytes()
        self.worker.state(table, status="applied")

    def test_ids_never_go_back(self):
        self.another_load()
        self.until_newer()
        for kill in range(KILLS):
            if kill % 10 == 9:
                self.run_another_placement()
            self.serve(self.random.uniform(0, LONGEST_LIFE))
            self.assertIsNone(self.subject.process.poll(), "ended by itself")
            self.subject.kill()
            self.subject.begin()
        self.subject.kill()
        self.subject.start()
        self.another_load()
        self.until_newer()
        print(f"{KILLS} kills, {len(self.named)} names, the newest {self.highest}")
        self.assertGreater(len(self.named), KILLS / 4, "hardly anything was published in between")


if __name__ == "__main__":
    unittest.main()
