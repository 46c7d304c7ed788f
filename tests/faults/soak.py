#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Everything at once, for a while: a load that changes, workers and subscribers that come and go, bad
input, orders, reloads and scrapes. Memory and descriptors must not grow, and it must go on deciding.

    EPLBD=... soak.py SECONDS
"""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "integration"))

import os
import resource

import numpy as np

from harness import SHAPE, Daemon, ask, eventually
from raw_peer import RawPeer
from workers import Follower, Publisher, skewed_load

MOST_MIB_AN_HOUR = 8.0  # of what is left after the first third, when everything has been touched
WARM = 1 / 3


class Soak:
    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.subject = Daemon().start()
        self.worker = Publisher(self.subject.counts).connected()
        self.follower = Follower(self.subject.placements)
        self.rng = np.random.default_rng(1)
        self.samples: list[tuple[float, float, int]] = []  # seconds, MiB, descriptors
        self.updates = 0
        self.turn = 0

    def resident(self) -> float:
        text = Path(f"/proc/{self.subject.process.pid}/statm").read_text()
        return int(text.split()[1]) * resource.getpagesize() / 2**20

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.subject.process.pid}/fd"))

    def work(self) -> None:
        self.worker.counts(skewed_load(self.turn // 60, **SHAPE, sigma=1.0))
        if self.follower.poll(0.01):
            self.updates += 1
            held, table = self.follower.held
            self.worker.running = held
            self.worker.state(table, status="applied", apply_seconds=0.1)
        self.follower.seen.clear()
        self.follower.heartbeats.clear()

    def trouble(self) -> None:
        what = self.turn % 8
        if what == 0:
            guest = Publisher(self.subject.counts, source=f"guest{self.turn % 97}", kind="delta")
            guest.connected().counts(np.ones(self.worker.totals.shape, np.uint32))
            guest.send(self.rng.bytes(100))
            guest.close()
        elif what == 1:
            Follower(self.subject.placements).close()
        elif what == 2:
            for path in ("/", "/metrics", "/api/v1/status", "/api/v1/placement?format=json", "/no"):
                self.subject.get(path)
        elif what == 3:
            ask(self.subject.control(), "POST", "/v1/rebalance", {"dry_run": True})
        elif what == 4:
            self.subject.reload(trigger={"min_gain": 0.005 + 0.001 * (self.turn % 3)})
        elif what == 5:
            peer = RawPeer(self.subject.placements, b"SUB")
            for _ in range(20):
                peer.send(b"\1" + self.rng.bytes(200))
            peer.close()
        elif what == 6:
            peer = RawPeer(self.subject.counts, b"PUB")
            peer.send(bytes(1 << 16), more=True, times=4)
            peer.close()

    def run(self) -> None:
        start = time.monotonic()
        next_trouble = start
        while (now := time.monotonic() - start) < self.seconds:
            self.work()
            self.turn += 1
            if time.monotonic() >= next_trouble:
                next_trouble += 0.1
                self.trouble()
                self.samples.append((now, self.resident(), self.descriptors()))

    def judge(self) -> list[str]:
        samples = np.array([s for s in self.samples if s[0] >= WARM * self.seconds])
        hours = samples[:, 0] / 3600
        slope = np.polyfit(hours, samples[:, 1], 1)[0]
        # What a fit over so short a time cannot tell apart from noise is no growth.
        growth = slope * (hours[-1] - hours[0])
        print(f"{self.turn} turns, {self.updates} updates, {samples[0, 1]:.1f} -> {samples[-1, 1]:.1f} MiB "
              f"({slope:+.2f} MiB/h), {int(samples[0, 2])} -> {int(samples[-1, 2])} descriptors")
        faults = []
        if slope > MOST_MIB_AN_HOUR and growth > 1.0:
            faults.append(f"memory grows by {slope:.1f} MiB an hour")
        if np.median(samples[-10:, 2]) > np.median(samples[:10, 2]) + 8:
            faults.append("descriptors are not given back")
        if self.updates < 2:
            faults.append("it does not decide any more")
        return faults


def main() -> int:
    soak = Soak(float(sys.argv[1]))
    try:
        soak.run()
        eventually(lambda: soak.subject.get("/healthz")[0] == 200, "healthy at the end")
        faults = soak.judge()
        code = soak.subject.stop()
        if code != 0:
            faults.append(f"ended with {code}")
    finally:
        soak.subject.close()
    for fault in faults:
        print(f"soak: {fault}", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
