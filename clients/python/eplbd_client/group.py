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


class GroupChannel:
    """How the ranks of a group learn of the same thing in the same step. Rank 0 talks to the daemon."""

    def __init__(
        self,
        group: dist.ProcessGroup,
        subscriber: Optional[PlacementSubscriber] = None,
        reporter: Optional[StateReporter] = None,
        check: Optional[Callable[[Placement], str]] = None,
    ) -> None:
        self.rank = dist.get_rank(group)
        # As torch.distributed names peers.
        self.ranks: list[int] = dist.get_process_group_ranks(group)
        self.size = len(self.ranks)
        if (self.rank == 0) != (subscriber is not None and reporter is not None):
            raise ValueError("rank 0, and only rank 0, has a subscriber and a reporter")
        self.group = group
        self._subscriber = subscriber
        self._reporter = reporter
        self._check = check
        self.stopping = False

    def receive(self, running: Placement, stop: bool = False) -> Optional[Placement]:
        """Collective: a placement above `running`, the same on every rank, or None."""
        placement = self._next(running) if self.rank == 0 and not stop else None
        head = torch.zeros(3, dtype=torch.int64)
        if stop:
            head[0] = _STOP
        elif placement is not None:
            head[:] = torch.tensor([1, *placement.id])
        dist.broadcast(head, self.ranks[0], group=self.group)
        if head[0] <= 0:
            self.stopping = bool(head[0] == _STOP)
            return None
        return self._share(placement, head, running)

    def agree(self, error: str) -> str:
        """Collective: what went wrong on any rank; "" when nothing did."""
        ready = torch.tensor([int(not error)])
        dist.all_reduce(ready, dist.ReduceOp.MIN, group=self.group)
        if ready.item():
            return ""
        errors: list[str] = [""] * self.size
        dist.all_gather_object(errors, error and f"rank {self.rank}: {error}", group=self.group)
        return "; ".join(filter(None, errors))[:500]

    def decline(self, running: Placement) -> None:
        if self._subscriber is not None:
            self._subscriber.decline(running)

    def report(
        self,
        running: Placement,
        status: str,
        *,
        layers_done: Optional[int] = None,
        apply_seconds: Optional[float] = None,
        error: Optional[str] = None,
    ) -> None:
        if self._reporter is not None:
            self._reporter.report(
                running,
                status,
                layers_done=layers_done,
                apply_seconds=apply_seconds,
                error=error,
            )

    def _next(self, running: Placement) -> Optional[Placement]:
        assert self._subscriber is not None
        placement = self._subscriber.poll()
        if placement is None:
            return None
        refusal = self._check(placement) if self._check else ""
        if refusal:
            self.decline(running)
            self.report(running, "refused", error=refusal)
            return None
        self.report(running, "applying", layers_done=0)
        return placement

    def _share(
        self, placement: Optional[Placement], head: torch.Tensor, running: Placement
    ) -> Placement:
        """The same object on every rank: the map, which layers first, and GPUs that are down."""
        size = running.layers * running.slots
        flat = torch.full((size + running.layers + running.gpus,), -2, dtype=torch.int32)
        if placement is not None:
            flat[:size] = torch.from_numpy(placement.physical_to_logical.ravel().copy())
            order = placement.layers_changed_from(running)
            flat[size : size + order.size] = torch.from_numpy(order)
            flat[size + running.layers :][placement.gpus_down.tolist()] = 1
        dist.broadcast(flat, self.ranks[0], group=self.group)
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
        self._channel = GroupChannel(group, subscriber, reporter, check)
        if self._channel.size != running.gpus:
            raise ValueError(f"{self._channel.size} ranks for {running.gpus} GPUs")
        self._group = group
        self._rank = self._channel.rank
        self._update: Optional[_Update] = None
        self.running = running
        self.failures = 0

    def step(self, stop: bool = False) -> bool:
        """Between two forward passes, on every rank. False: rank 0 said `stop`, and all may end."""
        if self._update is None:
            placement = self._channel.receive(self.running, stop)
            if placement is None:
                return not self._channel.stopping
            self._update = _Update(placement, self.running)
        update = self._update
        if update.done < len(update.layers):
            self._stage_next_layer(update)
        else:
            self._finish(update)
        return True

    def _stage_next_layer(self, update: _Update) -> None:
        """Nothing is sent before every rank has its buffers: a rank that fails leaves nobody waiting."""
        layer = update.layers[update.done]
        changes = update.changes[update.changes[:, 0] == layer].tolist()
        error = ""
        try:
            incoming = self._prepare(layer, changes)
        except Exception as problem:  # any reason of the engine's is one to keep the old map
            error = str(problem) or type(problem).__name__
        error = self._channel.agree(error)
        if error:
            self._abandon(error)
            return
        pending = []
        for slot, source, buffer in incoming:
            pending.append(dist.irecv(buffer, self._peer(source), group=self._group, tag=slot))
        for _, slot, _, source in changes:
            if source >= 0 and self._gpu(source) == self._rank != self._gpu(slot):
                tensor = self._weights.read(layer, self._own(source))
                peer = self._peer(self._gpu(slot))
                pending.append(dist.isend(tensor, peer, group=self._group, tag=slot))
        for request in pending:
            request.wait()
        update.done += 1
        self._channel.report(self.running, "applying", layers_done=update.done)

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
        seconds = time.monotonic() - update.started
        self._channel.report(self.running, "applied", apply_seconds=seconds)

    def _abandon(self, error: str) -> None:
        self._weights.discard()
        self._update = None
        self.failures += 1
        self._channel.decline(self.running)
        self._channel.report(self.running, "failed", error=error)

    def _peer(self, gpu: int) -> int:
        return self._channel.ranks[gpu]

    def _gpu(self, slot: int) -> int:
        return slot // self.running.slots_per_gpu

    def _own(self, slot: int) -> int:
        return slot % self.running.slots_per_gpu
