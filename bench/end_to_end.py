#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A recorded trace through real sockets, faster than it was: is anything lost, and what does it cost?

    EPLBD=build/release/daemon/eplbd bench/end_to_end.py --trace v3.npy --slots 288 --gpus 32 --speed 10

One publisher a data-parallel rank sends its share of every step's counts; a group that takes a while
to apply follows the placements and reports its state. Times in the messages run `speed` times as fast
as the clock. Prints a Markdown table; exits 1 when a message was lost or the placement is not better.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "integration"))

from harness import Daemon, eventually  # noqa: E402
from workers import (  # noqa: E402
    Follower,
    Publisher,
    imbalance,
    initial_map,
    moves,
    violations,
)


class Replay:
    def __init__(self, trace: np.ndarray, options: argparse.Namespace) -> None:
        self.trace, self.options = trace, options
        self.steps, layers, experts = trace.shape
        shape = {"layers": layers, "logical_experts": experts, "slots": options.slots,
                 "gpus": options.gpus}
        self.daemon = Daemon(
            "bench",
            mode=options.mode,
            topology=shape,
            window={"half_life": "auto"},
            trigger={"imbalance": 1.05, "settle": 1.03, "cooldown": f"{1000 // options.speed}ms",
                     "interval": "100ms", "min_gain": 0.003},
            workers={"timeout": "30s", "apply_timeout": "30s"},
        ).start()
        self.running = initial_map(**shape)
        self.initial = self.running
        self.moves = self.updates = 0
        self.worst = self.mean = self.static_worst = 0.0

    def connect(self) -> None:
        daemon, ranks = self.daemon, self.options.publishers
        self.publishers = [
            Publisher(daemon.counts, "bench", source=f"dp{i}").connected() for i in range(ranks)
        ]
        self.reporter = Publisher(daemon.counts, "bench", source="dp0").connected()
        self.follower = Follower(daemon.placements, "bench", held=((0, 0), self.running))
        self.report("idle")

    def report(self, status: str) -> None:
        self.reporter.state(self.running, status, self.trace.shape[2], self.options.gpus)

    def apply(self) -> None:
        identity, table = self.follower.held
        found = violations(table, self.trace.shape[2], self.options.gpus, self.running)
        if found:
            raise AssertionError(f"placement {identity}: {found[0]}")
        self.moves += len(moves(table, self.running, self.options.gpus))
        self.updates += 1
        self.running = table
        for worker in (*self.publishers, self.reporter):
            worker.running = identity
        self.report("applied")

    def score(self, load: np.ndarray) -> None:
        """A step is served under the placement in force before its counts are seen."""
        self.last = imbalance(load, self.running, self.options.gpus)
        mean = load.sum() / self.options.gpus
        self.mean += mean
        self.worst += self.last * mean
        self.static_worst += imbalance(load, self.initial, self.options.gpus) * mean

    def play(self) -> None:
        ranks, period = len(self.publishers), 1 / self.options.speed
        began = next_step = time.monotonic()
        cpu_before, _ = self.daemon.usage()
        for step in range(self.steps):
            load = self.trace[step].astype(np.int64)
            self.score(load)
            share = load // ranks
            for rank, publisher in enumerate(self.publishers):
                publisher.counts(share + (load - share * ranks if rank == 0 else 0))
            next_step += period
            while self.follower.poll(max(0.0, next_step - time.monotonic())):
                self.apply()
        self.seconds = time.monotonic() - began
        self.late = time.monotonic() - next_step
        self.sent = self.steps * ranks
        name = "counts_messages_total"
        eventually(lambda: self.daemon.metrics()(name) >= self.sent, "all messages taken", 10)
        cpu_after, self.rss = self.daemon.usage()
        self.cpu = cpu_after - cpu_before


def table(replay: Replay) -> tuple[str, bool]:
    metrics = replay.daemon.metrics()
    lost = metrics("counts_lost_total")
    rejected = sum(metrics.by_label("counts_rejected_total", "reason").values())
    tokens = int(replay.trace.astype(np.int64).sum())
    decides = metrics("decide_seconds_count") or 1
    before = replay.static_worst / replay.mean
    after = replay.worst / replay.mean
    good = not lost and not rejected and metrics("counts_tokens_total") == tokens
    good = good and (after < before or replay.options.mode != "active")
    size = metrics("counts_bytes_total") / max(metrics("counts_messages_total"), 1)
    rows = (
        ("steps, publishers", f"{replay.steps}, {replay.options.publishers}"),
        ("messages", f"{replay.sent} of {size / 1000:.1f} kB in {replay.seconds:.1f} s"),
        ("lost, rejected, tokens missing",
         f"{lost:.0f}, {rejected:.0f}, {tokens - metrics('counts_tokens_total'):.0f}"),
        ("imbalance, initial placement", f"{before:.3f} (balancedness {1 / before:.4f})"),
        ("imbalance, with eplbd", f"{after:.3f} (balancedness {1 / after:.4f})"),
        ("imbalance at the end", f"{replay.last:.3f}"),
        ("updates, moves", f"{replay.updates}, {replay.moves}"),
        ("peak RSS", f"{replay.rss:.1f} MiB"),
        ("CPU", f"{replay.cpu:.2f} s, {100 * replay.cpu / replay.seconds:.1f} % of a core"),
        ("CPU a message, decisions included", f"{1e6 * replay.cpu / replay.sent:.0f} us"),
        ("decisions, mean time", f"{decides:.0f}, "
         f"{1e3 * metrics('decide_seconds_sum') / decides:.2f} ms"),
    )
    lines = [f"| {Path(replay.options.trace).name} at {replay.options.speed}x | |", "|---|---|"]
    return "\n".join(lines + [f"| {name} | {value} |" for name, value in rows]), good


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--trace", required=True, help=".npy [steps, layers, experts]")
    parser.add_argument("--slots", type=int, help="default: one to spare on each GPU")
    parser.add_argument("--gpus", type=int, help="default: 32; of fewer than 128 experts 8")
    parser.add_argument("--publishers", type=int, default=4)
    parser.add_argument("--speed", type=int, default=10, help="steps a second")
    parser.add_argument("--mode", default="active", help="observe: what messages alone cost")
    parser.add_argument("--steps", type=int, default=0, help="only so many")
    options = parser.parse_args()
    trace = np.load(options.trace)
    experts = trace.shape[2]
    options.gpus = options.gpus or (32 if experts >= 128 else 8)
    options.slots = options.slots or experts + options.gpus
    replay = Replay(trace[: options.steps or len(trace)], options)
    try:
        replay.connect()
        replay.play()
        text, good = table(replay)
        print(text)
        return 0 if good else 1
    finally:
        replay.daemon.close()


if __name__ == "__main__":
    sys.exit(main())
