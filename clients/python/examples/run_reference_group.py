#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Runs the reference group against a real eplbd through everything that goes wrong.

    EPLBD=build/release/daemon/eplbd clients/python/examples/run_reference_group.py

The daemon is killed and started again, a rank fails in the middle of an update, the whole group dies
with one of its ranks and comes back, others join late. Every slot is checked after every version;
the process exits 1 at the first thing that is not right.
"""

from __future__ import annotations

import argparse
import multiprocessing
import queue
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parents[2] / "tests" / "integration")]

from harness import Daemon  # noqa: E402
from reference_group import Settings, run_rank  # noqa: E402

from eplbd_client import PlacementSubscriber  # noqa: E402

STUCK_SECONDS = 60
APPLY_TIMEOUT = "500ms"


class Run:
    """The daemon, the group's processes, and what has happened so far."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.random = random.Random(options.seed)
        self.folder = tempfile.TemporaryDirectory(prefix="eplbd-group-")
        self.processes: list[multiprocessing.Process] = []
        self.lives = self.applied = self.failed = self.joined = self.kills = 0
        self.steps = self.steps_of_life = 0
        self.join_ms: list[float] = []
        self.last_id = (0, 0)
        self.daemon = Daemon(
            "reference",
            topology={"layers": 6, "logical_experts": 32, "slots": 40, "gpus": 8},
            window={"half_life": "500ms"},
            trigger={"imbalance": 1.06, "settle": 1.03, "cooldown": "50ms", "interval": "20ms"},
            workers={"timeout": "10s", "apply_timeout": APPLY_TIMEOUT},
        )
        self.apply_seconds: list[tuple[float, float]] = []

    # ---- the group ----

    def start_group(self, failures: list[tuple[int, int]]) -> None:
        self.lives += 1
        self.stop = multiprocessing.Event()
        self.events: multiprocessing.Queue = multiprocessing.Queue()
        settings = Settings(
            deployment="reference",
            counts=self.daemon.counts,
            placements=self.daemon.placements,
            rendezvous=f"{self.folder.name}/life{self.lives}",
            seed=self.options.seed + self.lives,
            failures=failures,
        )
        self.settings = settings
        self.processes = [
            multiprocessing.Process(
                target=run_rank, args=(rank, settings, self.stop, self.events), daemon=True
            )
            for rank in range(settings.gpus)
        ]
        for process in self.processes:
            process.start()

    def end_group(self, kill: bool) -> None:
        if kill:
            self.random.choice(self.processes).kill()
            # Without one rank the rest cannot go on: whoever starts engines starts all anew.
            for process in self.processes:
                process.kill()
        else:
            self.stop.set()
            while self.next_event()[0] != "ended":
                pass
        self.steps += self.steps_of_life
        for process in self.processes:
            process.join(STUCK_SECONDS)
            if not kill and process.exitcode != 0:
                raise AssertionError(f"{process.name} ended with {process.exitcode}")

    def next_event(self):
        deadline = time.monotonic() + STUCK_SECONDS
        while True:
            try:
                event = self.events.get(timeout=1)
                self.steps_of_life = event[2]
                return event
            except queue.Empty:
                dead = [p.name for p in self.processes if p.exitcode not in (None, 0)]
                if dead:
                    raise AssertionError(f"died: {', '.join(dead)}") from None
                if time.monotonic() > deadline:
                    raise AssertionError("stuck: " + self.explain()) from None

    def explain(self) -> str:
        metrics = self.daemon.metrics()
        return f"{metrics.by_label('decisions_total', 'verdict')}\n{self.daemon.log()[-3000:]}"

    def updates(self, number: int) -> None:
        """Waits for so many more."""
        target = self.applied + number
        while self.applied < target:
            kind, identity, _ = self.next_event()
            if kind == "applied":
                if identity <= self.last_id:
                    raise AssertionError(f"{identity} came after {self.last_id}")
                self.last_id = identity
                self.applied += 1
            elif kind == "failed":
                self.failed += 1

    # ---- what goes wrong ----

    def kill_daemon(self) -> None:
        self.note_histogram()
        self.daemon.kill()
        self.daemon.start()
        self.kills += 1

    def join_late(self) -> None:
        started = time.monotonic()
        with PlacementSubscriber(
            "reference", [self.daemon.placements], self.settings.initial()
        ) as late:
            placement = late.poll(5)
        if placement is None:
            raise AssertionError("a late joiner got nothing")
        self.join_ms.append(1000 * (time.monotonic() - started))
        identity, table = self.daemon.placement()
        if placement.id == identity and not np.array_equal(placement.physical_to_logical, table):
            raise AssertionError("a late joiner got another map")
        self.joined += 1

    def note_histogram(self) -> None:
        """apply_seconds as the daemon recorded it; it starts from zero at each of its lives."""
        metrics = self.daemon.metrics()
        count, total = metrics("apply_seconds_count"), metrics("apply_seconds_sum")
        if count:
            self.apply_seconds.append((count, total))

    def play(self) -> None:
        options = self.options
        self.daemon.start()
        marks = [self.random.randrange(options.updates) for _ in range(options.daemon_kills)]
        restarts = set(self.random.sample(range(5, options.updates), options.group_restarts))
        failing = self.plan_failures(restarts)
        self.start_group(failing[0])
        for update in range(options.updates):
            if update in restarts:
                self.end_group(kill=True)
                # A new group starts from its own initial map and is brought to the newest.
                self.last_id = (0, 0)
                self.start_group(failing[self.lives])
            for _ in range(marks.count(update)):
                self.kill_daemon()
            if update % 10 == 5:
                self.join_late()
            self.updates(1)
            if options.progress and update % 10 == 9:
                print(f"  {update + 1} updates", file=sys.stderr, flush=True)
        self.note_histogram()
        self.end_group(kill=False)

    def plan_failures(self, restarts: set[int]) -> list[list[tuple[int, int]]]:
        """For each life of the group, which rank fails in which of its updates."""
        starts = sorted({0, *restarts})
        lives: list[list[tuple[int, int]]] = [[] for _ in starts]
        for update in self.random.sample(range(2, self.options.updates - 2), self.options.failures):
            life = max(i for i, start in enumerate(starts) if start <= update)
            # A rank that has nothing to stage in that update fails in none: name them all, and one
            # of them does.
            rank = self.random.randrange(8)
            lives[life] += [((rank + k) % 8, update - starts[life]) for k in range(8)]
        return lives


def report(run: Run, seconds: float) -> None:
    counts = sum(count for count, _ in run.apply_seconds)
    total = sum(total for _, total in run.apply_seconds)
    print(f"| reference group | {run.applied} updates in {seconds:.0f} s |")
    print("|---|---|")
    print(f"| daemon killed, started again | {run.kills} |")
    print(f"| updates in which a rank failed | {run.failed} |")
    print(f"| group killed, started again | {run.lives - 1} |")
    print(f"| late joiners | {run.joined}, median {statistics.median(run.join_ms or [0]):.0f} ms |")
    print(f"| applied, as the daemon recorded | {counts:.0f}, mean {total / max(counts, 1):.2f} s |")
    settings = run.settings
    print(f"| slots checked, all right | {run.applied * settings.layers * settings.slots} |")
    print(f"| steps, each with one map on all ranks | {run.steps} |")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--updates", type=int, default=200)
    parser.add_argument("--daemon-kills", type=int, default=20)
    parser.add_argument("--failures", type=int, default=12)
    parser.add_argument("--group-restarts", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--progress", action="store_true")
    run = Run(parser.parse_args())
    started = time.monotonic()
    try:
        run.play()
        report(run, time.monotonic() - started)
        return 0
    except AssertionError as problem:
        print(f"after {run.applied} updates: {problem}", file=sys.stderr)
        return 1
    finally:
        for process in run.processes:
            process.kill()
        run.daemon.close()
        run.folder.cleanup()


if __name__ == "__main__":
    sys.exit(main())
