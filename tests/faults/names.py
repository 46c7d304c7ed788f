# SPDX-License-Identifier: Apache-2.0
"""What a group sees of (term, version) while its daemon is mistreated."""

from harness import SHAPE, Daemon, DaemonTest, eventually
from workers import Follower, Publisher, skewed_load


class NamesTest(DaemonTest):
    """A daemon, a worker that counts and one that receives placements: no name that they are told
    goes back, and none has two maps."""

    def begin(self, subject: Daemon) -> None:
        self.subject = subject
        self.addCleanup(self._end, subject)
        subject.start()
        self.named = {}  # (term, version) -> map, as any message or heartbeat said
        self.highest = (0, 0)
        self.beats = []  # what heartbeats named
        self.lost = False  # generations of the state: older ones are named for a while
        self.seed = 0
        self.connect()

    def connect(self):
        self.worker = Publisher(self.subject.counts).connected()
        self.worker.running = self.highest
        self.follower = Follower(self.subject.placements)
        self.addCleanup(self.worker.close)
        self.addCleanup(self.follower.close)

    def look(self, timeout=0.02):
        """Takes what was published, and checks that no name is used twice or goes back."""
        self.follower.poll(timeout)
        for message in self.follower.seen:
            identity = message["term"], message["version"]
            table = message["physical_to_logical"]
            self.assertEqual(self.named.setdefault(identity, table), table, "one id, two maps")
            if not self.lost:
                self.assertGreaterEqual(identity, self.highest, "went back")
            self.highest = max(identity, self.highest)
        self.beats += [(beat["term"], beat["version"]) for beat in self.follower.heartbeats]
        self.follower.seen.clear()
        self.follower.heartbeats.clear()
        self.worker.running = max(self.worker.running, self.highest)

    def another_load(self):
        self.seed += 1
        self.load = skewed_load(self.seed, **SHAPE, sigma=1.0)

    def until_newer(self, timeout=20):
        before = self.highest

        def newer():
            self.worker.counts(self.load)
            self.look()
            return self.highest > before

        eventually(newer, f"a placement above {before}", timeout)
        self.assertLessEqual(set(self.beats), {(0, 0), *self.named}, "a name that nobody was sent")
