# SPDX-License-Identifier: Apache-2.0
"""What an engine's ranks agree on without waiting for each other, and rank 0's link to the daemon."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple, Optional

import numpy as np
import torch
import torch.distributed as dist

from ..placement import Placement, PlacementId
from ..reporter import StateReporter
from ..subscriber import PlacementSubscriber
from . import Settings, source_name

# An agreement takes about so long, in steps; an update begins after two or three of them.
ROUND_SECONDS = 0.4
ROUND_STEPS = (4, 64)
_LISTEN_SECONDS = 0.2


def own_group(group: dist.ProcessGroup) -> dist.ProcessGroup:
    """A gloo group of the same ranks: nothing of ours gets in between the engine's collectives."""
    ranks = dist.get_process_group_ranks(group)
    try:
        # Pipeline stages make theirs each by itself.
        return dist.new_group(ranks, backend="gloo", use_local_synchronization=True)
    except TypeError:  # torch before 2.1
        return dist.new_group(ranks, backend="gloo")


class Desk:
    """Rank 0's link to the daemon. A thread of its own listens, so that no step waits for a socket."""

    def __init__(
        self, settings: Settings, running: Placement, refuse: Callable[[Placement], str]
    ) -> None:
        self._settings = settings
        self._refuse = refuse
        curve = settings.curve(0)
        self.reporter = StateReporter(
            settings.deployment,
            settings.counts,
            source_name(0),
            running,
            engine=settings.engine,
            curve=curve,
        )
        self._subscriber = PlacementSubscriber(
            settings.deployment,
            settings.placements,
            running,
            heard=self.reporter.heard,
            curve=curve,
        )
        self._lock = threading.Lock()
        self._newest: Optional[Placement] = None
        self._declined: Optional[Placement] = None
        self._closing = False
        self._thread = threading.Thread(target=self._listen, name="eplbd-listener", daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        while not self._closing:
            placement = self._subscriber.poll(_LISTEN_SECONDS)
            with self._lock:
                self._newest = placement or self._newest
                declined, self._declined = self._declined, None
            if declined is not None:
                self._subscriber.decline(declined)
        self._subscriber.close()

    def why_idle(self) -> str:
        """Why the engine should balance by itself now; "" where the daemon does it."""
        tracker = self._subscriber.tracker
        silence = tracker.silence(time.monotonic())
        if silence is None:
            return "no daemon was heard yet"
        if silence > self._settings.fallback_seconds:
            return f"no daemon was heard for {self._settings.fallback_seconds:g} s"
        if tracker.mode != "active":
            return f"the daemon's mode is {tracker.mode or 'unknown'}"
        if tracker.same_shape is None:
            return "no placement was heard yet"
        if not tracker.same_shape:
            return "the daemon's placements have another shape than this engine"
        return ""

    def take(self, running: Placement) -> Optional[Placement]:
        """The newest placement above `running`, each once; one that is refused is told to the daemon."""
        with self._lock:
            placement, self._newest = self._newest, None
        if placement is None or placement.id <= running.id:
            return None
        refusal = self._refuse(placement)
        if refusal:
            self.decline(running)
            self.reporter.report(running, "refused", error=refusal)
            return None
        return placement

    def decline(self, running: Placement) -> None:
        """`running` is what runs after all: what was taken may come again."""
        with self._lock:
            self._declined = running

    def close(self) -> None:
        self._closing = True
        self.reporter.close()


class Agreed(NamedTuple):
    """The same on every rank in the same step."""

    follows: bool  # the daemon balances, not the engine
    gives_up: bool  # the update in progress
    unable: int  # ranks that said they are
    running: PlacementId  # as rank 0 names it
    placement: Optional[Placement]  # to begin with now


class Say(NamedTuple):
    """What rank 0 puts into a round."""

    follows: bool = False
    gives_up: bool = False
    running: PlacementId = PlacementId(0, 0)
    placement: Optional[Placement] = None


class Channel:
    """Every so many steps each rank starts a sum over the group and takes what came of the last one.

    Who takes it has made all those steps since, and so has, in step with it, every other rank: the
    sum is there as a rule, and nobody waits. What is known is known on all ranks in the same step.
    A placement takes a round more: its map follows. Rank 0 says how many steps the next round has.
    """

    def __init__(self, group: Any, running: Placement) -> None:
        self._group = group
        self._shape = running
        self._length = self._left = ROUND_STEPS[0]
        self._started = time.monotonic()
        self._work: Any = None
        self._values = torch.zeros(9, dtype=torch.int64)
        self._map: Optional[torch.Tensor] = None
        self._offered: Optional[Placement] = None

    def step(self, say: Callable[[], Say], unable: bool = False) -> Optional[Agreed]:
        """`say` is asked once a round, and only rank 0's counts."""
        self._left -= 1
        if self._left > 0:
            return None
        agreed = None
        if self._work is None:
            self._start(say(), unable)
        else:
            self._wait()
            agreed = self._take(say, unable)
        self._left = self._length
        return agreed

    def _take(self, say: Callable[[], Say], unable: bool) -> Agreed:
        follows, gives_up, unable_ranks, term, version, coming, *next_id, length = (
            self._values.tolist()
        )
        placement = None
        if coming and self._map is None:
            self._start_map()
        else:
            if coming:
                placement = self._received(PlacementId(*next_id))
            self._start(say(), unable)
        self._length = length
        running = PlacementId(term, version)
        return Agreed(bool(follows), bool(gives_up), unable_ranks, running, placement)

    def _wait(self) -> None:
        self._work.wait()

    def _start(self, said: Say, unable: bool) -> None:
        self._map, self._offered = None, said.placement
        self._values = torch.zeros(9, dtype=torch.int64)
        self._values[2] = int(unable)
        if self._group.rank() == 0:
            self._values[:2] = torch.tensor([said.follows, said.gives_up])
            self._values[3:5] = torch.tensor(said.running)
            if said.placement is not None:
                self._values[5:8] = torch.tensor([1, *said.placement.id])
            self._values[8] = self._next_length()
        self._work = dist.all_reduce(self._values, group=self._group, async_op=True)

    def _next_length(self) -> int:
        """By how long the steps of the last round were."""
        seconds = time.monotonic() - self._started
        self._started = time.monotonic()
        return int(np.clip(ROUND_SECONDS * self._length / max(seconds, 1e-6), *ROUND_STEPS))

    def _start_map(self) -> None:
        """Sums of one rank's numbers and the others' zeros: a group that only sums will do."""
        self._map = torch.zeros(self._shape.layers * (self._shape.slots + 1), dtype=torch.int32)
        if self._offered is not None:
            order = np.full(self._shape.layers, -1, np.int32)
            changed = self._offered.changed_layers
            order[: changed.size] = changed
            flat = np.concatenate([self._offered.physical_to_logical.ravel(), order])
            self._map.copy_(torch.from_numpy(flat))
        self._work = dist.all_reduce(self._map, group=self._group, async_op=True)

    def _received(self, placement_id: PlacementId) -> Placement:
        assert self._map is not None
        shape = self._shape
        table, order = np.split(self._map.numpy(), [shape.layers * shape.slots])
        return Placement(
            placement_id,
            table.reshape(shape.layers, shape.slots),
            shape.logical_experts,
            shape.gpus,
            changed_layers=order[order >= 0].copy(),
        )


def open_desk(
    settings: Settings, running: Placement, group: Any, refuse: Callable[[Placement], str]
) -> Optional[Desk]:
    """Collective: rank 0's desk, None elsewhere. Raises on every rank where rank 0 has none."""
    desk, error = None, ""
    if group.rank() == 0:
        try:
            desk = Desk(settings, running, refuse)
        except Exception as problem:
            error = str(problem) or type(problem).__name__
    failed = torch.tensor([int(bool(error))])
    dist.all_reduce(failed, group=group)
    if failed.item():
        raise RuntimeError(f"rank 0 has no link to the daemon: {error or 'its log says why'}")
    return desk
