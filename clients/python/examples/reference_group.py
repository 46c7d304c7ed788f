# SPDX-License-Identifier: Apache-2.0
"""A group of workers without an engine: the executable specification for adapters.

Each process is one GPU. In every slot lies a tensor that names its layer and expert, so that a
weight in the wrong place is seen at once. A step routes tokens by a load that drifts, counts them
per slot, publishes them, and gives eplbd_client.group the moment between two steps.
"""

from __future__ import annotations

import datetime
import os
import time
import zlib
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.distributed as dist

from eplbd_client import CountsPublisher, Placement, PlacementSubscriber, StateReporter
from eplbd_client.group import GroupFollower

WIDTH = 1024  # floats of one expert's weights


@dataclass
class Settings:
    deployment: str
    counts: str
    placements: str
    rendezvous: str  # a file that only this life of the group uses
    layers: int = 6
    logical_experts: int = 32
    slots: int = 40
    gpus: int = 8
    tokens: int = 4000  # of a step, a layer and a rank
    step_seconds: float = 0.01
    seed: int = 0
    # (rank, update): when that rank stages its second change of that update, it fails once.
    failures: list[tuple[int, int]] = field(default_factory=list)

    def initial(self) -> Placement:
        return Placement.initial(self.layers, self.logical_experts, self.slots, self.gpus)


def tag(layer: int, expert: int) -> torch.Tensor:
    """What the file of an expert's weights would hold."""
    return torch.arange(WIDTH, dtype=torch.float32) + 1000.0 * (layer * 1000 + expert)


class TaggedWeights:
    """One GPU's slots, and what must be true of them."""

    def __init__(self, rank: int, running: Placement, failures: set[int]) -> None:
        self.rank = rank
        self.failures = failures
        self.updates = 0
        self.loaded = 0
        self.per_gpu = running.slots_per_gpu
        self.slots: dict[tuple[int, int], torch.Tensor] = {}
        self.staged: dict[tuple[int, int], torch.Tensor] = {}
        for layer in range(running.layers):
            for slot, expert in enumerate(self._own(running, layer)):
                self.slots[layer, slot] = tag(layer, expert)

    def _own(self, placement: Placement, layer: int) -> list[int]:
        first = self.rank * self.per_gpu
        return placement.physical_to_logical[layer, first : first + self.per_gpu].tolist()

    def read(self, layer: int, slot: int) -> torch.Tensor:
        return self.slots[layer, slot]

    def stage(self, layer: int, slot: int) -> torch.Tensor:
        if self.staged and self.updates in self.failures:
            raise MemoryError("no room for another expert")
        self.staged[layer, slot] = torch.full((WIDTH,), torch.nan)
        return self.staged[layer, slot]

    def load(self, layer: int, slot: int, expert: int) -> None:
        self.loaded += 1
        self.staged[layer, slot].copy_(tag(layer, expert))

    def commit(self, placement: Placement) -> None:
        self.slots.update(self.staged)
        self.staged.clear()
        self.updates += 1

    def discard(self) -> None:
        self.staged.clear()
        self.failures.discard(self.updates)  # one failure an update, whichever rank met it

    def check(self, placement: Placement) -> None:
        """Every slot holds exactly what the placement says."""
        for layer in range(placement.layers):
            for slot, expert in enumerate(self._own(placement, layer)):
                if expert >= 0 and not torch.equal(self.slots[layer, slot], tag(layer, expert)):
                    raise AssertionError(
                        f"rank {self.rank}: layer {layer} slot {slot} does not hold {expert}"
                    )


class DriftingLoad:
    """Popularity of experts that wanders, and sometimes jumps; alike on every rank."""

    def __init__(self, settings: Settings) -> None:
        self._random = np.random.default_rng(settings.seed)
        self._shape = settings.layers, settings.logical_experts
        self._logits = self._random.normal(0, 0.7, self._shape)

    def next(self) -> np.ndarray:
        """Shares [layers, logical_experts] of the next step."""
        if self._random.random() < 0.02:
            self._logits = self._random.normal(0, 0.7, self._shape)
        self._logits += self._random.normal(0, 0.02, self._shape)
        shares = np.exp(self._logits)
        return shares / shares.sum(axis=1, keepdims=True)


def route(shares: np.ndarray, placement: Placement, tokens: int, random: np.random.Generator):
    """Tokens of this rank per slot [layers, slots]: each goes to one replica of its expert."""
    replicas = placement.logical_replica_count()
    physical = np.zeros(placement.physical_to_logical.shape, np.int64)
    for layer, table in enumerate(placement.physical_to_logical):
        chance = np.where(table >= 0, (shares[layer] / replicas[layer])[table], 0.0)
        physical[layer] = random.multinomial(tokens, chance / chance.sum())
    return physical


def run_rank(rank: int, settings: Settings, stop, events) -> None:
    """One process. `events` takes what rank 0 has to tell; `stop` is an event that ends the run."""
    torch.set_num_threads(1)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group(
        "gloo",
        init_method=f"file://{settings.rendezvous}",
        rank=rank,
        world_size=settings.gpus,
        timeout=datetime.timedelta(seconds=60),
    )
    engine_group = dist.new_group()  # the engine's own collectives
    our_group = dist.new_group()
    running = settings.initial()
    mine = {update for failing, update in settings.failures if failing == rank}
    weights = TaggedWeights(rank, running, mine)
    head = {}
    if rank == 0:
        reporter = StateReporter(
            settings.deployment,
            [settings.counts],
            "rank0",
            running,
            features=["inactive_gpus"],
        )
        head["reporter"] = reporter
        head["subscriber"] = PlacementSubscriber(
            settings.deployment, [settings.placements], running, heard=reporter.heard
        )
    follower = GroupFollower(weights, running, our_group, **head)
    publisher = CountsPublisher(
        settings.deployment,
        [settings.counts],
        f"rank{rank}",
        layers=settings.layers,
        logical_experts=settings.logical_experts,
        gpus=settings.gpus,
    )
    load = DriftingLoad(settings)
    random = np.random.default_rng((settings.seed, rank))
    steps = 0
    while True:
        started = time.monotonic()
        publisher.publish_physical(
            route(load.next(), follower.running, settings.tokens, random), follower.running
        )
        check_one_map(follower.running, engine_group)
        steps += 1
        before, failures = follower.running.id, follower.failures
        if not follower.step(stop=stop.is_set()):
            break
        if follower.running.id != before:
            weights.check(follower.running)
            if rank == 0:
                events.put(("applied", follower.running.id, steps))
        if rank == 0 and follower.failures != failures:
            events.put(("failed", follower.running.id, steps))
        time.sleep(max(0.0, started + settings.step_seconds - time.monotonic()))
    weights.check(follower.running)
    if rank == 0:
        events.put(("ended", follower.running.id, steps))
    dist.barrier(group=engine_group)
    publisher.close()
    if rank == 0:
        head["reporter"].close()
        head["subscriber"].close()


def check_one_map(running: Placement, group: dist.ProcessGroup) -> None:
    """No step runs with two maps: every rank serves this one by the same placement, bit by bit."""
    digest = zlib.crc32(running.physical_to_logical.tobytes())
    mine = torch.tensor([running.id.term, running.id.version, digest])
    low, high = mine.clone(), mine.clone()
    dist.all_reduce(low, dist.ReduceOp.MIN, group=group)
    dist.all_reduce(high, dist.ReduceOp.MAX, group=group)
    if not torch.equal(low, high):
        raise AssertionError(f"a step with mixed maps: {low.tolist()} and {high.tolist()}")
