# SPDX-License-Identifier: Apache-2.0
"""Whatever happens to the disk, the clock or the process: what was named is saved, (term, version)
never goes back, an id names one map, and it decides again once the fault is over."""

import errno
import os
import time
import unittest

import numpy as np

from harness import SHAPE, Daemon, eventually
from names import NamesTest
from workers import Follower, initial_map

SHIM = os.environ.get("EPLBD_FAULT_SHIM")
MOST_CALLS = 30  # of one save; far above what it takes


@unittest.skipUnless(SHIM, "set EPLBD_FAULT_SHIM to the built shim")
class Saves(NamesTest):
    def setUp(self):
        subject = Daemon()
        self.plan_file = subject.folder / "plan"
        self.state = subject.folder / "state"
        subject.environment = {
            "LD_PRELOAD": SHIM,
            "EPLBD_FAULT_FOLDER": str(self.state),
            "EPLBD_FAULT_PLAN": str(self.plan_file),
        }
        self.begin(subject)

    def plan(self, text):
        fresh = self.plan_file.with_suffix(".new")
        fresh.write_text(text)
        fresh.rename(self.plan_file)

    def until_failed_or_ended(self):
        """The plan's call was reached: the save failed, the process ended, or it needs fewer calls."""
        failures = self.subject.metrics()("state_write_errors_total") or 0
        before = self.highest

        def done():
            if self.subject.process.poll() is not None:
                return "killed"
            try:
                self.worker.counts(self.load)
                self.look()
                if self.subject.metrics()("state_write_errors_total") > failures:
                    return "failed"
            except OSError:
                return None
            return "saved" if self.highest > before else None

        return eventually(done, "the planned call, or a save without it")

    def restart(self):
        if self.subject.process.poll() is None:
            self.subject.kill()
        self.worker.close()
        self.follower.close()
        self.subject.start()
        (term, version), _ = self.subject.placement()
        self.assertGreaterEqual((term, version), self.highest, "published, but not saved")
        self.connect()

    def each_call(self, error):
        self.another_load()
        self.until_newer()
        for call in range(1, MOST_CALLS):
            self.another_load()
            self.plan(f"{call} {error}")
            outcome = self.until_failed_or_ended()
            self.plan("")
            if outcome == "saved":
                break
            if outcome == "failed":
                self.until_newer()
            self.restart()
            self.another_load()
            self.until_newer()
        self.assertEqual(outcome, "saved", "a save of so many calls?")
        self.assertGreater(call, 5, "the calls of a save were not seen")

    def test_killed_at_every_call_of_a_save(self):
        self.each_call(0)

    def test_every_call_of_a_save_fails_once(self):
        self.each_call(errno.EIO)

    def test_a_disk_that_is_full_or_read_only_or_breaks(self):
        self.another_load()
        self.until_newer()
        for error in (errno.ENOSPC, errno.EROFS, errno.EIO, errno.EDQUOT):
            with self.subTest(errno.errorcode[error]):
                self.another_load()
                self.plan(f"0 {error}")
                self.assertEqual(self.until_failed_or_ended(), "failed")
                status = self.subject.get_json("/api/v1/status")
                self.assertIn("cannot be saved", " ".join(status["problems"]))
                self.assertEqual(self.subject.get("/healthz")[0], 200)
                before = self.highest
                self.look(0.5)
                self.assertEqual(self.highest, before, "published while nothing can be saved")
                self.plan("")
                self.until_newer()
                self.restart()

    def test_without_hard_links(self):
        """Nothing that a save does is a link(2): it works where there are none."""
        self.another_load()
        self.until_newer()
        self.assertEqual({os.stat(entry).st_nlink for entry in self.state.iterdir()}, {1})

    def test_an_adopted_placement_is_not_named_before_it_is_saved(self):
        self.another_load()
        self.until_newer()
        self.plan(f"0 {errno.EIO}")
        own = initial_map(**SHAPE)
        own[:, [0, 1]] = own[:, [1, 0]]
        above = (self.highest[0] + 1000, 7)
        self.worker.running = above
        self.worker.state(own, status="applied")
        eventually(lambda: self.subject.metrics()("state_write_errors_total"), "a save failed")
        self.follower.close()
        self.follower = Follower(self.subject.placements)  # is sent what is in force
        before = self.highest
        eventually(lambda: self.follower.poll(0.05) or self.follower.seen, "the one in force")
        self.look(1.2)  # and a heartbeat
        self.assertEqual(self.highest, before)
        self.worker.running = before
        self.subject.kill()
        self.plan("")
        self.restart()
        eventually(lambda: self.follower.poll(0.05) or self.follower.seen, "the one in force")
        self.look()
        self.worker.running = above
        self.worker.state(own, status="applied")
        self.named[above] = own.astype("<i4").tobytes()
        eventually(lambda: self.subject.placement()[0] == above, "adopted, and saved")
        self.another_load()
        self.highest = above
        self.until_newer()
        self.assertGreater(self.highest[0], above[0], "a term of its own")

    def test_the_newest_damaged_at_once_while_the_clock_stands(self):
        """Nobody tells it, and the clock gives the same term again: the other generation knows."""
        self.plan(f"stopped {int(time.time()) + 3600}")
        self.restart()
        self.another_load()
        self.until_newer()
        for name in ("state", "state.previous"):
            with self.subTest(name):
                self.worker.running = (0, 0)
                self.subject.kill()
                self.damage(name)
                self.restart()
                self.another_load()
                self.until_newer()

    def damage(self, name):
        damaged = bytearray((self.state / name).read_bytes())
        damaged[-1] ^= 1
        (self.state / name).write_bytes(damaged)

    def test_damaged_at_once_with_the_clock_set_back(self):
        """The newest generation, either one or both, is lost right after the first of a term."""
        self.lost = True
        self.another_load()
        self.until_newer()
        for lost in (["state"], ["state.previous"], ["state", "state.previous"]):
            for shift in (0, -3600):
                with self.subTest(lost=lost, shift=shift):
                    self.subject.kill()
                    for name in lost:
                        self.damage(name)
                    self.plan(f"clock {shift}")
                    self.worker.close()
                    self.follower.close()
                    self.subject.start()
                    self.connect()
                    if lost == ["state", "state.previous"]:
                        # Only the workers know now: their state tells.
                        table = np.frombuffer(self.named[self.highest], "<i4").reshape(4, -1)
                        self.worker.state(table, status="applied")
                        eventually(lambda: self.subject.placement()[0] >= self.highest, "adopted")
                    self.another_load()
                    self.until_newer(30)


if __name__ == "__main__":
    unittest.main()
