# SPDX-License-Identifier: Apache-2.0
"""One expert-parallel group follows one placement: every update by all ranks in the same step, or by
none. Needs torch.distributed; engines' adapters and the reference group in examples/ stand on it.

Every rank calls GroupFollower.step() between two forward passes. Rank 0 alone talks to the daemon
and tells the rest over a process group of our own, so that nothing of ours can get in between the
engine's collectives. While an update is on its way, each call brings one layer's weights into a
staging area; the last one asks all ranks whether they have everything, and either all switch or
all throw the staged weights away.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Optional, Protocol

import numpy as np
import torch
import torch.distributed as dist

from .placement import Placement, PlacementId
from .reporter import StateReporter
from .subscriber import PlacementSubscriber

_STOP = -1


class ExpertWeights(Protocol):
    """What an engine lends us of one rank. Slots are the rank's own: 0 .. slots_per_gpu - 1."""

    def read(self, layer: int, slot: int) -> torch.Tensor:
        """The weights in a slot, as one contiguous tensor; not changed while an update is staged."""

    def stage(self, layer: int, slot: int) -> torch.Tensor:
        """A buffer for the weights that will lie in the slot after commit()."""

    def load(self, layer: int, slot: int, expert: int) -> None:
        """Fills stage(layer, slot) from disk: no rank holds this expert."""

    def commit(self, placement: Placement) -> None:
        """Staged weights take their slots and the engine routes by `placement` from here on.

        Must not fail: what may, belongs into stage() or load().
        """

    def discard(self) -> None:
        """Forgets what was staged."""


class _Update:
    def __init__(self, placement: Placement, running: Placement) -> None:
        self.placement = placement
        self.started = time.monotonic()
        self.layers = placement.layers_changed_from(running).tolist()
        self.changes = placement.difference(running)
        self.done = 0


class GroupFollower:
    """`subscriber` and `reporter` are rank 0's, None on the others. `running` is alike on all.

    `group` must be a process group of this object alone that can send CPU tensors (gloo): make it
    with dist.new_group on every rank. `check` may refuse a placement: it returns why, or "".
    """

    def __init__(
        self,
        weights: ExpertWeights,
        running: Placement,
        group: dist.ProcessGroup,
        *,
        subscriber: Optional[PlacementSubscriber] = None,
        reporter: Optional[StateReporter] = None,
        check: Optional[Callable[[Placement], str]] = None,
    ) -> None:
        self._weights = weights
        self._group = group
        self._rank = dist.get_rank(group)
        if dist.get_world_size(group) != running.gpus:
            raise ValueError(f"{dist.get_world_size(group)} ranks for {running.gpus} GPUs")
        if (self._rank == 0) != (subscriber is not None and reporter is not None):
            raise ValueError("rank 0, and only rank 0, has a subscriber and a reporter")
        self._subscriber = subscriber
        self._reporter = reporter
        self._check = check
        self._update: Optional[_Update] = None
        self.running = running
        self.failures = 0

    def step(self, stop: bool = False) -> bool:
        """Between two forward passes, on every rank. False: rank 0 said `stop`, and all may end."""
        update = self._update or self._receive(stop)
        if update is None:
            return not self._stopping
        self._update = update
        if update.done < len(update.layers):
            self._stage_next_layer(update)
        else:
            self._finish(update)
        return True

    _stopping = False

    # ---- rank 0 tells the others ----

    def _receive(self, stop: bool) -> Optional[_Update]:
        placement = self._next_placement() if self._rank == 0 and not stop else None
        head = torch.zeros(3, dtype=torch.int64)
        if stop:
            head[0] = _STOP
        elif placement is not None:
            head[:] = torch.tensor([1, *placement.id])
        dist.broadcast(head, 0, group=self._group)
        if head[0] <= 0:
            self._stopping = bool(head[0] == _STOP)
            return None
        return _Update(self._share(placement, head), self.running)

    def _next_placement(self) -> Optional[Placement]:
        assert self._subscriber is not None
        placement = self._subscriber.poll()
        if placement is None:
            return None
        refusal = self._check(placement) if self._check else ""
        if refusal:
            self._subscriber.decline(self.running)
            self._report("refused", error=refusal)
            return None
        self._report("applying", layers_done=0)
        return placement

    def _share(self, placement: Optional[Placement], head: torch.Tensor) -> Placement:
        """The same object on every rank: the map, which layers first, and GPUs that are down."""
        running = self.running
        size = running.layers * running.slots
        flat = torch.full((size + running.layers + running.gpus,), -2, dtype=torch.int32)
        if placement is not None:
            flat[:size] = torch.from_numpy(placement.physical_to_logical.ravel().copy())
            order = placement.layers_changed_from(running)
            flat[size : size + order.size] = torch.from_numpy(order)
            flat[size + running.layers :][placement.gpus_down.tolist()] = 1
        dist.broadcast(flat, 0, group=self._group)
        values = flat.numpy()
        order = values[size : size + running.layers]
        return Placement(
            id=PlacementId(int(head[1]), int(head[2])),
            physical_to_logical=values[:size].reshape(running.layers, running.slots),
            logical_experts=running.logical_experts,
            gpus=running.gpus,
            changed_layers=order[order >= 0].copy(),
            gpus_down=np.nonzero(values[size + running.layers :] == 1)[0].astype(np.int32),
        )

    # ---- all ranks apply ----

    def _stage_next_layer(self, update: _Update) -> None:
        """Nothing is sent before every rank has its buffers: a rank that fails leaves nobody waiting."""
        layer = update.layers[update.done]
        changes = update.changes[update.changes[:, 0] == layer].tolist()
        error = ""
        try:
            incoming = self._prepare(layer, changes)
        except Exception as problem:  # any reason of the engine's is one to keep the old map
            error = f"rank {self._rank}: {problem}"
        if not self._agree(not error):
            self._abandon(update, error)
            return
        pending = []
        for slot, source, buffer in incoming:
            pending.append(dist.irecv(buffer, source, group=self._group, tag=slot))
        for _, slot, _, source in changes:
            if source >= 0 and self._gpu(source) == self._rank != self._gpu(slot):
                tensor = self._weights.read(layer, self._own(source))
                pending.append(dist.isend(tensor, self._gpu(slot), group=self._group, tag=slot))
        for request in pending:
            request.wait()
        update.done += 1
        self._report("applying", layers_done=update.done)

    def _prepare(
        self, layer: int, changes: list[list[int]]
    ) -> list[tuple[int, int, torch.Tensor]]:
        """Buffers for what this rank receives: (slot, rank that sends, buffer)."""
        incoming = []
        for _, slot, expert, source in changes:
            if self._gpu(slot) != self._rank:
                continue
            buffer = self._weights.stage(layer, self._own(slot))
            if source < 0:
                self._weights.load(layer, self._own(slot), expert)
            elif self._gpu(source) == self._rank:
                buffer.copy_(self._weights.read(layer, self._own(source)))
            else:
                incoming.append((slot, self._gpu(source), buffer))
        return incoming

    def _finish(self, update: _Update) -> None:
        self._weights.commit(update.placement)
        self.running = update.placement
        self._update = None
        self._report("applied", apply_seconds=time.monotonic() - update.started)

    def _abandon(self, update: _Update, error: str) -> None:
        self._weights.discard()
        self._update = None
        self.failures += 1
        errors: list[str] = [""] * self.running.gpus
        dist.all_gather_object(errors, error, group=self._group)
        if self._subscriber is not None:
            self._subscriber.decline(self.running)
        self._report("failed", error="; ".join(filter(None, errors))[:500])

    def _agree(self, ready: bool) -> bool:
        answer = torch.tensor([int(ready)])
        dist.all_reduce(answer, dist.ReduceOp.MIN, group=self._group)
        return bool(answer.item())

    def _report(
        self,
        status: str,
        *,
        layers_done: Optional[int] = None,
        apply_seconds: Optional[float] = None,
        error: Optional[str] = None,
    ) -> None:
        if self._reporter is not None:
            self._reporter.report(
                self.running,
                status,
                layers_done=layers_done,
                apply_seconds=apply_seconds,
                error=error,
            )

    def _gpu(self, slot: int) -> int:
        return slot // self.running.slots_per_gpu

    def _own(self, slot: int) -> int:
        return slot % self.running.slots_per_gpu
