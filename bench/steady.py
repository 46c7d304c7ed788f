#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What many sources that report out of step cost a daemon, beside bare libzmq that receives the same.

    EPLBD=build/release/daemon/eplbd bench/steady.py build/release/bench/bench_steady [--seconds 60]

The daemon has the shipped configuration's shape and mode. Prints a Markdown table; exits 1 when a
message was lost.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "integration"))

from harness import Daemon, eventually  # noqa: E402

SHAPE = {"layers": 58, "logical_experts": 256, "slots": 288, "gpus": 32}


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def mib(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 2**20


def cores_of(pid: int, seconds: float) -> float:
    before = cpu_seconds(pid)
    time.sleep(seconds)
    return (cpu_seconds(pid) - before) / seconds


class Run:
    """Sends to one receiver. `cores` and `mib` are of its process while they were sent, `silent` while
    all were connected and sent nothing."""

    def __init__(self, options: argparse.Namespace, endpoint: str, pid: int, arrived) -> None:
        sender = subprocess.Popen(
            [options.program, "send", endpoint, str(options.sources), str(options.rate),
             str(options.seconds)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        assert sender.stdout.readline() == "connected\n"
        before = cpu_seconds(pid)
        self.sent = int(sender.stdout.readline())
        self.cores = (cpu_seconds(pid) - before) / options.seconds
        self.mib = mib(pid)
        if arrived:
            eventually(lambda: arrived() == self.sent, "all messages came", timeout=10)
        self.silent = cores_of(pid, options.seconds / 4)
        sender.communicate("\n")


def raw(options: argparse.Namespace) -> Run:
    receiver = subprocess.Popen(
        [options.program, "receive"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    run = Run(options, receiver.stdout.readline().strip(), receiver.pid, None)
    received = int(receiver.communicate("\n")[0])
    run.lost = run.sent - received
    return run


def eplbd(options: argparse.Namespace) -> Run:
    daemon = Daemon("bench", topology=SHAPE, mode="observe", window={"half_life": "auto"},
                    trigger={"interval": "1s"}).start()
    try:
        arrived = lambda: daemon.metrics()("counts_messages_total")  # noqa: E731
        run = Run(options, daemon.counts, daemon.process.pid, arrived)
        run.lost = int(daemon.metrics()("counts_lost_total"))
        daemon.stop()
        started = time.monotonic()
        daemon.begin()
        eventually(daemon.answers, "ready", poll=0.001)
        run.ready = time.monotonic() - started
        run.alone = cores_of(daemon.process.pid, options.seconds / 4)
        return run
    finally:
        daemon.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("program", help="bench_steady, built")
    parser.add_argument("--sources", type=int, default=320)
    parser.add_argument("--rate", type=float, default=3200, help="messages a second, of all sources")
    parser.add_argument("--seconds", type=float, default=60)
    options = parser.parse_args()
    print(f"{options.sources} sources, {options.rate:g} messages a second of 58 x 256, "
          f"{options.seconds:g} s\n\n| | messages | lost | of a core | silent | MiB |\n"
          "|---|--:|--:|--:|--:|--:|")
    lost = 0
    for name, receive in (("bare libzmq", raw), ("eplbd", eplbd)):
        run = receive(options)
        lost += run.lost
        print(f"| {name} | {run.sent} | {run.lost} | {run.cores:.1%} | {run.silent:.1%} | {run.mib:.0f} |",
              flush=True)
    print(f"\nStarted again it was ready after {1e3 * run.ready:.0f} ms, and took {run.alone:.1%} of a core "
          "with nobody connected.")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
