# SPDX-License-Identifier: Apache-2.0
"""What goes wrong in the middle of an update, and what must be so afterwards."""

import time

import numpy as np

from stage import HISTORY


class DaemonKilled:
    """Twice, while the group applies; a new one takes its place at once."""

    def __init__(self, run):
        self.run, self.kills = run, 0

    @property
    def happened(self):
        return self.kills == 2

    def look(self):
        run = self.run
        if self.happened or run.applied() < 2 * self.kills + 1 or not run.applying():
            return
        run.applied_before = run.applied()
        run.daemon.kill()
        run.daemon.start()
        self.kills += 1


class Superseded:
    """While the group applies a placement another is published: it runs the second in the end."""

    def __init__(self, run):
        self.run, self.wanted, self.happened = run, None, False

    def look(self):
        run = self.run
        if self.wanted is None and run.applied() >= 1 and run.applying():
            reversed_map = run.daemon.placement()[1][:, ::-1]
            run.order("/v1/import", physical_to_logical_map=reversed_map.tolist())
            self.wanted = run.daemon.placement()[1]
        elif self.wanted is not None and not self.happened and not run.applying():
            if not np.array_equal(run.daemon.placement()[1], self.wanted):
                raise AssertionError("not what was published last")
            self.happened = True
            run.order("/v1/resume")


class ThreadFails:
    """The engine's own thread, on one rank: the stage sees to it. Told, and the next one is applied."""

    def __init__(self, run):
        self.run, self.failed_at = run, None

    @property
    def happened(self):
        return self.failed_at is not None and self.run.applied() > self.failed_at

    def look(self):
        failures = self.run.daemon.metrics()("apply_failures_total")
        if self.failed_at is None and failures:
            self.failed_at = self.run.applied()


class RankDies:
    """A rank's process, while the group applies: the others can go no further. No two of them run
    different maps, and the daemon says in time that the placement was not applied."""

    def __init__(self, run):
        self.run, self.happened = run, False

    def play(self):
        run = self.run
        run.totals()
        for process in run.processes:
            process.start()
        self.until(lambda: run.applied() >= 1 and run.applying(), run.told["seconds"], "an update")
        run.processes[-1].kill()
        failures = lambda: run.daemon.metrics()("apply_failures_total")  # noqa: E731
        self.until(failures, 2 * run.apply_seconds, "the daemon says that it was not applied")
        history = np.array(run.maps[:-1]).reshape(len(run.processes), -1)[:-1]
        steps = history[:, 0]
        last = steps.min() - np.arange(min(steps.min(), HISTORY // 2))
        runs = history[:, 1 + last % HISTORY]
        self.happened = True
        return {
            "engine": run.told["name"], "version": run.told["version"], "mode": run.told["mode"],
            "updates_applied": run.applied(), "slots_checked": 0, "slots_wrong": 0,
            "tokens_sent": None, "tokens_lost": None, "steps": int(steps[0]),
            "mixed_steps": int((runs != runs[0]).any(axis=0).sum()),
            "map_as_shown": True, "fault": "rank-dies", "fault_happened": True,
        }

    @staticmethod
    def until(condition, seconds, what):
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {seconds} s: {what}")
            time.sleep(0.01)


FAULTS = {
    "daemon-killed": DaemonKilled, "superseded": Superseded, "rank-dies": RankDies,
    "thread-dies": ThreadFails, "thread-hangs": ThreadFails,
}
