# SPDX-License-Identifier: Apache-2.0
"""Which logical expert lies in which slot, what follows from it, and what changes between two."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple, Optional

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


class PlacementId(NamedTuple):
    """Orders placements: a worker takes what is above what it holds. (0, 0) is the initial one."""

    term: int
    version: int


def _empty() -> Array:
    return np.zeros(0, np.int32)


@dataclass(frozen=True, eq=False)
class Placement:
    """physical_to_logical is int32 [layers, slots]; slot s lies on GPU s // slots_per_gpu; -1: empty."""

    id: PlacementId
    physical_to_logical: Array
    logical_experts: int
    gpus: int
    base_version: int = 0
    ts: float = 0.0
    changed_layers: Array = field(default_factory=_empty)
    moves: Array = field(default_factory=lambda: np.zeros((0, 4), np.int32))
    gpus_down: Array = field(default_factory=_empty)
    imbalance_before: float = 0.0
    imbalance_after: float = 0.0
    reason: str = "initial"

    def __post_init__(self) -> None:
        table = np.ascontiguousarray(self.physical_to_logical, dtype=np.int32)
        if table.ndim != 2:
            raise ValueError("physical_to_logical is [layers, slots]")
        if self.gpus < 1 or table.shape[1] % self.gpus:
            raise ValueError(f"{table.shape[1]} slots do not spread over {self.gpus} GPUs")
        if table.size and (table.min() < -1 or table.max() >= self.logical_experts):
            raise ValueError("physical_to_logical: an expert out of range")
        if table is self.physical_to_logical:
            table = table.copy()
        table.flags.writeable = False
        object.__setattr__(self, "physical_to_logical", table)

    @staticmethod
    def initial(layers: int, logical_experts: int, slots: int, gpus: int) -> Placement:
        """Slot s holds expert s % logical_experts: what vLLM starts with, known as (0, 0)."""
        row = np.arange(slots, dtype=np.int32) % logical_experts
        return Placement(PlacementId(0, 0), np.tile(row, (layers, 1)), logical_experts, gpus)

    @property
    def layers(self) -> int:
        return int(self.physical_to_logical.shape[0])

    @property
    def slots(self) -> int:
        return int(self.physical_to_logical.shape[1])

    @property
    def slots_per_gpu(self) -> int:
        return self.slots // self.gpus

    @property
    def has_empty_slots(self) -> bool:
        """A GPU of it is down."""
        return bool((self.physical_to_logical < 0).any())

    def same_map(self, other: Placement) -> bool:
        return bool(np.array_equal(self.physical_to_logical, other.physical_to_logical))

    def logical_replica_count(self) -> Array:
        """int32 [layers, logical_experts]: the slots that hold each expert."""
        return _sum_by_expert(self, None).astype(np.int32)

    def logical_to_physical(self, width: int = 0) -> Array:
        """int32 [layers, logical_experts, width]: each expert's slots in slot order, -1 padded.

        `width` 0 takes the largest replica count; engines that fixed theirs pass it.
        """
        counts = self.logical_replica_count()
        largest = int(counts.max(initial=0))
        if width and width < largest:
            raise ValueError(f"an expert has {largest} replicas, more than width {width}")
        table = np.full((self.layers, self.logical_experts, width or largest), -1, np.int32)
        for layer, row in enumerate(self.physical_to_logical):
            order = np.argsort(row, kind="stable")
            order = order[row[order] >= 0]
            experts = row[order]
            first = np.searchsorted(experts, experts)
            table[layer, experts, np.arange(experts.size) - first] = order
        return table

    def difference(self, running: Placement) -> Array:
        """int32 [changes, 4] against the map that really runs: layer, slot, expert, source slot.

        The source is a slot of `running` that holds the expert: on the slot's own GPU (a copy, no
        move) where there is one, else the one that has sent least so far; -1: load it from disk.
        Slots that become empty are not listed.
        """
        mine, theirs = self.physical_to_logical, running.physical_to_logical
        if mine.shape != theirs.shape or self.logical_experts != running.logical_experts:
            raise ValueError("the two placements are of different shapes")
        changes: list[tuple[int, int, int, int]] = []
        sent = np.zeros(self.gpus, np.int64)
        down = set(self.gpus_down.tolist())
        for layer in np.nonzero((mine != theirs).any(axis=1))[0]:
            holders: dict[int, list[int]] = {}
            for slot, expert in enumerate(theirs[layer].tolist()):
                if expert >= 0:
                    holders.setdefault(expert, []).append(slot)
            for slot in np.nonzero(mine[layer] != theirs[layer])[0].tolist():
                expert = int(mine[layer, slot])
                if expert >= 0:
                    source = self._source(slot, holders.get(expert, []), sent, down)
                    changes.append((int(layer), slot, expert, source))
        return np.array(changes, np.int32).reshape(-1, 4)

    def _source(self, slot: int, holders: list[int], sent: Array, down: set[int]) -> int:
        gpu = slot // self.slots_per_gpu
        if not holders:
            return -1
        # A GPU that is down may still answer (drained) or not (lost): any other is better.
        best = min(
            holders,
            key=lambda s: (
                s // self.slots_per_gpu != gpu,
                s // self.slots_per_gpu in down,
                sent[s // self.slots_per_gpu],
                s,
            ),
        )
        if best // self.slots_per_gpu != gpu:
            sent[best // self.slots_per_gpu] += 1
        return best

    def layers_changed_from(self, running: Placement) -> Array:
        """Layers whose map differs, the daemon's best gain first where it named them."""
        differ = (self.physical_to_logical != running.physical_to_logical).any(axis=1)
        named = [layer for layer in self.changed_layers.tolist() if differ[layer]]
        rest = sorted(set(np.nonzero(differ)[0].tolist()) - set(named))
        return np.array(named + rest, np.int32)


def _sum_by_expert(placement: Placement, values: Optional[Array]) -> Array:
    """[layers, logical_experts]: of `values` [layers, slots], exact below 2^53; None: ones."""
    experts = placement.logical_experts
    # Empty slots, -1, add to a column of their own.
    index = placement.physical_to_logical % (experts + 1)
    index = index + (experts + 1) * np.arange(placement.layers)[:, None]
    weights = None if values is None else values.ravel()
    sums = np.bincount(index.ravel(), weights, placement.layers * (experts + 1))
    return sums.reshape(placement.layers, experts + 1)[:, :-1]


def logical_counts(physical_counts: Array, placement: Placement) -> Array:
    """uint64 [layers, logical_experts] from tokens per slot [layers, slots].

    `placement` must be the one under which the tokens were routed, not the one that came after:
    convert before an update is applied. Tokens of an empty slot belong to nobody.
    """
    physical = np.asarray(physical_counts)
    table = placement.physical_to_logical
    if physical.shape != table.shape:
        raise ValueError(f"counts are {physical.shape}, the placement is {table.shape}")
    return _sum_by_expert(placement, physical).astype(np.uint64)


def gpu_tokens(physical_counts: Array, gpus: int) -> Array:
    """uint64 [layers, gpus] from tokens per slot: what each GPU really received."""
    physical = np.asarray(physical_counts).astype(np.uint64)
    summed: Array = physical.reshape(physical.shape[0], gpus, -1).sum(axis=2, dtype=np.uint64)
    return summed
