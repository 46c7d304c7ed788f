# SPDX-License-Identifier: Apache-2.0
"""Processes of one torch.distributed group, and the daemon that a test plays for them."""

import importlib.util
import logging
import multiprocessing
import queue
import tempfile
import time
import traceback
import unittest

import numpy as np

from eplbd_client import Placement
from eplbd_client.adapters import Settings
from fake_daemon import FakeDaemon

if importlib.util.find_spec("torch") is None:
    raise unittest.SkipTest("python3-torch is not installed")

import torch
import torch.distributed as dist

LAYERS, EXPERTS, SLOTS = 3, 8, 12


def initial(gpus):
    return Placement.initial(LAYERS, EXPERTS, SLOTS, gpus)


class Told(logging.Handler):
    """What an adapter logged."""

    def __init__(self):
        super().__init__()
        self.messages = []
        logging.getLogger("eplbd_client").addHandler(self)
        logging.getLogger("eplbd_client").propagate = False
        logging.getLogger("eplbd_client").setLevel(logging.INFO)

    def emit(self, record):
        self.messages.append(record.getMessage())


def run_rank(target, rank, size, rendezvous, results, arguments):
    """Puts (rank, what target(rank, *arguments) returned) or (rank, the exception)."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=size)
    try:
        results.put((rank, target(rank, *arguments)))
    except Exception:
        results.put((rank, traceback.format_exc()))
        raise
    dist.barrier()


def tell_the_rest(session, tally, table):
    """Of a rank that makes no more steps: what it counted and did not send yet, and what it runs."""
    session._agreeing = False
    for _ in range(8):  # a part in each: those of what is on its way, and of the rest
        session._fetched_at = 0.0
        session.report(tally, lambda: table)
    if session.publisher is not None:
        session.publisher.flush(2)


def same_on_all(value, group=None):
    low, high = torch.tensor([value]), torch.tensor([value])
    dist.all_reduce(low, dist.ReduceOp.MIN, group=group)
    dist.all_reduce(high, dist.ReduceOp.MAX, group=group)
    return bool(low == high)


class RanksTest(unittest.TestCase):
    def setUp(self):
        self.daemon = FakeDaemon()
        self.addCleanup(self.daemon.close)
        self.messages = []

    def settings(self, **changes):
        daemon = self.daemon
        found = {"counts": (daemon.counts_endpoint,), "placements": (daemon.placements_endpoint,)}
        return Settings("d", **{**found, **changes})

    def play(self, target, size, *arguments, placement=None, times=1, mode="active", beats=10**6):
        """Runs the ranks to their end: what each returned.

        As the daemon does, whoever joins gets the initial placement; then heartbeats in `mode` (none:
        ""), at most `beats`, and `placement`, a second apart, `times`.
        """
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        results = multiprocessing.Queue()
        ranks = [
            multiprocessing.Process(
                target=run_rank, daemon=True,
                args=(target, rank, size, f"{folder.name}/meet", results, arguments))
            for rank in range(size)
        ]
        for process in ranks:
            process.start()
        self.addCleanup(lambda: [process.kill() for process in ranks])
        gpus = arguments[0]
        told, published, next_at, next_beat, joined = {}, 0, 0.0, 0.0, False
        deadline = time.monotonic() + 90
        while len(told) < size:
            self.assertLess(time.monotonic(), deadline, f"stuck: {told}")
            self.listen(20)
            now = time.monotonic()
            if mode and self.daemon.placements.poll(0) and self.daemon.placements.recv()[:1] == b"\1":
                self.daemon.placement(
                    0, 0, initial(gpus).physical_to_logical, experts=EXPERTS, gpus=gpus)
                joined, next_beat, next_at = True, 0.0, next_at or now + 0.2
            if joined and beats and now > next_beat:
                # It names what it last published.
                self.daemon.heartbeat(*((9, 1) if published else (0, 0)), mode=mode)
                beats, next_beat = beats - 1, now + 0.1
            if joined and placement is not None and published < times and now > next_at:
                self.daemon.placement(9, 1, placement, experts=EXPERTS, gpus=gpus)
                published, next_at = published + 1, now + 1
            while True:
                try:
                    rank, result = results.get_nowait()
                except queue.Empty:
                    break
                self.assertNotIsInstance(result, str, result)
                told[rank] = result
        while self.listen(300):
            pass
        return [told[rank] for rank in range(size)]

    def listen(self, milliseconds):
        if not self.daemon.counts.poll(milliseconds):
            return False
        self.messages.append(self.daemon.receive()[1])
        return True

    def statuses(self):
        return [m["status"] for m in self.messages if m["type"] == "state"]

    def totals(self, source):
        """What its counters stand at in the end: [layers, experts], and its steps."""
        mine = [m for m in self.messages if m["type"] == "counts" and m["source"] == source]
        counts = np.frombuffer(mine[-1]["counts"], "<u4").reshape(LAYERS, EXPERTS)
        return counts, sum(m["steps"] for m in mine), mine
