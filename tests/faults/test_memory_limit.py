# SPDX-License-Identifier: Apache-2.0
"""What many peers take together may reach what the unit grants. The kernel then ends the daemon, and
none else; the next one goes on from what was saved. scripts/test memory takes the unit's own limit."""

import os
import threading
import time
import unittest

from budget import MEMORY_OF_UNIT, MIB, Budget
from harness import Daemon
from names import NamesTest
from raw_peer import RawPeer

WHOLE = bool(os.environ.get("EPLBD_UNIT_MEMORY"))
MEMORY, PEERS = (MEMORY_OF_UNIT, 80) if WHOLE else (128 * MIB, 24)


class MemoryLimit(NamesTest):
    def setUp(self):
        subject = Daemon()
        self.budget = Budget(subject, MEMORY)
        if not self.budget.group:
            self.skipTest("a cgroup with a limit on memory may not be made here")
        self.addCleanup(self.budget.close)
        self.begin(subject)
        self.another_load()
        self.until_newer()
        self.budget.begin()

    def attack(self):
        """Empty frames without end, each of which takes some sixty bytes."""
        try:
            peer = RawPeer(self.subject.counts, b"PUB", timeout=20)
            self.addCleanup(peer.close)
            while True:
                peer.send(b"", more=True, times=1000)
        except OSError:
            pass  # its connection was ended, or the daemon was

    def test_at_its_limit_it_ends_and_goes_on(self):
        start = time.monotonic()
        attacks = [threading.Thread(target=self.attack) for _ in range(PEERS)]
        for attack in attacks:
            attack.start()
        for attack in attacks:
            attack.join()
        took = time.monotonic() - start
        ended = self.budget.ended_by_kernel()
        if not ended:
            self.assertEqual(self.subject.get("/healthz")[0], 200)
        print(f"{PEERS} peers, {MEMORY / MIB:.0f} MiB, {took:.1f} s: {'ended' if ended else 'goes on'}")
        self.subject.kill()
        self.worker.close()
        self.follower.close()
        self.subject.start()
        self.assertEqual(self.subject.placement()[0], self.highest)
        self.connect()
        self.another_load()
        self.until_newer()


if __name__ == "__main__":
    unittest.main()
