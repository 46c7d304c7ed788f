# SPDX-License-Identifier: Apache-2.0
"""Killed again and again, at any moment of its life, while the load moves and the group reports:
(term, version) never goes back, one names one map, and it goes on.

EPLBD_KILLS: how often; 30 where it is not set.
"""

import os
import random
import time
import unittest

import numpy as np

from harness import Daemon
from names import NamesTest

KILLS = int(os.environ.get("EPLBD_KILLS", "30"))
# Seconds: it starts within the first; decides, adopts and saves within the others; and with the
# last it gets over the two seconds in which it asks what workers run.
LONGEST_LIVES = (0.1, 0.3, 0.5, 4)


class Kills(NamesTest):
    def setUp(self):
        self.begin(Daemon())
        self.random = random.Random(1)
        self.own = None  # the map of another placement that the group runs

    def serve(self, seconds):
        """The load moves, and what was published is applied and reported."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.random.random() < 0.1:
                self.another_load()
            self.worker.counts(self.load)
            self.look(0.005)
            held, table = self.follower.held
            if held == self.worker.running:
                self.worker.state(table, status="applied")
            elif self.own is not None:
                self.worker.state(self.own, status="applied")

    def run_another_placement(self):
        """As if another daemon had placed meanwhile: adopted, and what comes next is above it."""
        self.own = np.array(self.follower.held[1])
        self.own[:, [0, 1]] = self.own[:, [1, 0]]
        term, version = max(self.highest, self.worker.running)
        self.worker.running = (term + 1, version + 1)
        self.named[self.worker.running] = self.own.astype("<i4").tobytes()

    def test_ids_never_go_back(self):
        self.another_load()
        self.until_newer()
        for kill in range(KILLS):
            if kill % 10 == 9:
                self.run_another_placement()
            self.serve(self.random.random() * self.random.choice(LONGEST_LIVES))
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
