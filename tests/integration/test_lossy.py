# SPDX-License-Identifier: Apache-2.0
"""A lossy feed beside a whole one: messages lost and repeated, publishers and the daemon restarted,
a long gap. Running totals make the two windows one again, as fast as the window forgets.

Everything is in half-lives, so a half-life of a second and a gap of ten stand for twenty seconds
and the ten minutes that EPLBD_TEN_MINUTES=1 really waits (a quarter of an hour in all).
"""

import os
import random
import threading
import time
import unittest
from typing import NamedTuple

import numpy as np

from harness import DaemonTest, eventually
from workers import Publisher, skewed_load

HALF_LIFE, GAP = (20.0, 600.0) if os.environ.get("EPLBD_TEN_MINUTES") else (1.0, 10.0)
TICKS = 20  # of a half-life
DECAY = np.log(2) / HALF_LIFE  # per second
LAYERS, EXPERTS, SOURCES = 4, 32, 4
TOKENS = 20_000  # of a layer, a source and a tick
# A GPU an expert: then a GPU's load is its expert's.
SHAPE = {"layers": LAYERS, "logical_experts": EXPERTS, "slots": EXPERTS, "gpus": EXPERTS}


class Interval(NamedTuple):
    """The time that one message's counts are spread over."""

    begin: float
    end: float

    def misplaced(self, now: float) -> float:
        """So many seconds of load, at most, weigh otherwise than if each token had its own time.

        No token weighs less than the oldest or more than the newest; and two courses of one rate
        differ by no more than all of both.
        """
        length = self.end - self.begin
        forgotten = 1 - np.exp(-DECAY * length)
        return np.exp(-DECAY * (now - self.end)) * forgotten * min(length, 2 / DECAY)


class Source:
    """One worker that two daemons hear: `whole` everything, `holed` what gets through."""

    def __init__(self, name: str, clean: str, lossy: str, start: float) -> None:
        self.whole = Publisher(clean, source=name).connected()
        self.holed = Publisher(lossy, source=name).connected()
        self.whole.since = self.holed.since = self.heard = start
        self.delivered = 0
        self.intervals: list[Interval] = []

    def restart(self, now: float) -> None:
        """All that it counted was sent; the next life begins at zero."""
        self.holed.restart()
        self.holed.since = self.heard = now

    def meet_new_daemon(self) -> None:
        """What that hears first is all that this life counted."""
        self.holed.connected()
        self.heard = self.holed.since
        self.delivered = 0

    def tick(self, load, ts: float, lost: bool, repeated: bool) -> None:
        self.whole.counts(load, ts=ts)
        message = self.holed.message(load, ts=ts)
        if lost:
            self.holed.sequence += 1
            return
        for sequence in [self.holed.sequence] * (1 + repeated):
            self.holed.send(message, sequence=sequence)
        self.holed.sequence += 1
        self.delivered += 1
        if ts - self.heard > 1.5 * HALF_LIFE / TICKS:
            self.intervals.append(Interval(self.heard, ts))
        self.heard = ts


class Lossy(DaemonTest):
    def setUp(self):
        options = {"mode": "observe", "topology": SHAPE,
                   "window": {"half_life": f"{HALF_LIFE:g}s"}}
        self.clean, self.lossy = self.daemon(**options), self.daemon(**options)
        self.random = random.Random(5)
        self.start = time.time()
        self.done = self.dropped = self.repeated = 0
        self.sources = [Source(f"dp{i}", self.clean.counts, self.lossy.counts, self.start)
                        for i in range(SOURCES)]
        for source in self.sources:
            self.addCleanup(source.whole.close)
            self.addCleanup(source.holed.close)

    def test_ends_with_the_window_of_the_whole_feed(self):
        self.run_for(6)
        self.restart_daemon()
        self.run_for(6, last_arrives=True)
        self.compare("daemon restarted")
        self.run_for(GAP / HALF_LIFE, cut_off=True)
        self.run_for(1, last_arrives=True)
        for source in self.sources:
            source.restart(self.time_of(self.done))
        self.run_for(5, last_arrives=True)
        self.compare(f"gap of {GAP:g} s, {SOURCES} publishers restarted")
        rejected = self.lossy.metrics().by_label("counts_rejected_total", "reason")
        self.assertEqual(rejected, {})

    def time_of(self, tick: int) -> float:
        return self.start + tick * HALF_LIFE / TICKS

    def run_for(self, half_lives: float, cut_off=False, last_arrives=False) -> None:
        end = self.done + round(half_lives * TICKS)
        while self.done < end:
            self.tick(cut_off, last_arrives and self.done + 1 == end)

    def restart_daemon(self) -> None:
        self.lossy.kill()
        restart = threading.Thread(target=self.lossy.start)
        restart.start()
        while restart.is_alive():
            self.tick(cut_off=True)
        for source in self.sources:
            source.meet_new_daemon()

    def tick(self, cut_off: bool, arrives: bool = False) -> None:
        """Every source counts and sends what it counted, in real time; load drifts."""
        self.done += 1
        ts = self.time_of(self.done)
        time.sleep(max(0.0, ts - time.time()))
        load = skewed_load(self.done // 10, LAYERS, EXPERTS, tokens=TOKENS)
        for source in self.sources:
            lost = cut_off or (self.random.random() < 0.05 and not arrives)
            repeated = not lost and self.random.random() < 0.01
            source.tick(load, ts, lost, repeated)
            self.dropped += lost
            self.repeated += repeated

    def compare(self, after: str) -> None:
        self.all_arrived(self.clean, SOURCES * self.done)
        self.all_arrived(self.lossy, sum(source.delivered for source in self.sources))
        (whole, then), (holed, now) = self.window(self.clean), self.window(self.lossy)
        whole *= np.exp(-DECAY * (now - then))
        rate = LAYERS * TOKENS * TICKS / HALF_LIFE
        misplaced = sum(i.misplaced(now) for source in self.sources for i in source.intervals)
        bound = misplaced * rate / whole.sum()
        found = np.abs(whole - holed).sum() / whole.sum()
        print(f"\n{after}; half-life {HALF_LIFE:g} s, {self.dropped} messages lost, "
              f"{self.repeated} repeated: windows differ by {found:.2%} after six half-lives, "
              f"the decay allows {bound:.2%}", flush=True)
        self.assertLess(bound, 0.05)
        self.assertLess(found, bound + 0.01)  # 1 %: messages do not all take the same time

    def all_arrived(self, daemon, messages: int) -> None:
        eventually(lambda: daemon.metrics()("counts_messages_total") == messages, "all messages")

    def window(self, daemon) -> tuple[np.ndarray, float]:
        """Decayed tokens [layers, experts], and when."""
        status = daemon.get_json("/api/v1/status")
        share = np.array(status["layer_gpu_load_ratio"]) / (LAYERS * EXPERTS)
        return share * status["tokens"], status["ts"]


if __name__ == "__main__":
    unittest.main()
