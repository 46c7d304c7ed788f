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

from ..placement import Array, Placement, PlacementId
from ..reporter import StateReporter
from ..subscriber import PlacementSubscriber
from . import Settings, logger, source_name

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
        # First what has no thread: whichever fails, nothing is told.
        self._subscriber = PlacementSubscriber(
            settings.deployment,
            settings.placements,
            running,
            heard=lambda placement_id: self.reporter.heard(placement_id),
            curve=curve,
        )
        try:
            self.reporter = StateReporter(
                settings.deployment,
                settings.counts,
                source_name(0),
                running,
                engine=settings.engine,
                curve=curve,
            )
        except BaseException:
            self._subscriber.close()
            raise
        self._lock = threading.Lock()
        self._newest: Optional[Placement] = None
        self._declined: Optional[Placement] = None
        self._lines: list[tuple[int, str]] = []
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
            self._write_log()
        self._subscriber.close()

    def log(self, level: int, line: str) -> None:
        """By the thread: what a log goes to may block."""
        with self._lock:
            self._lines.append((level, line))

    def _write_log(self) -> None:
        with self._lock:
            lines, self._lines = self._lines, []
        for level, line in lines:
            logger.log(level, "eplbd: %s", line)

    def why_idle(self) -> str:
        """Why the engine should balance by itself now; "" where the daemon does it."""
        tracker = self._subscriber.tracker
        silence = tracker.silence(time.monotonic())
        if silence is None or not tracker.mode:
            return "no daemon was heard yet"
        if silence > self._settings.fallback_seconds:
            return f"no daemon was heard for {self._settings.fallback_seconds:g} s"
        if tracker.mode != "active":
            return f"the daemon's mode is {tracker.mode}"
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
        self._rank = group.rank()
        self._shape = running
        self._length = self._left = ROUND_STEPS[0]
        self._made = 0  # steps, since _started
        self.acted = False  # in this step a round was taken or begun
        self._started = time.monotonic()
        self._work: Any = None
        self._values = np.zeros(9, np.int64)
        self._map: Optional[Array] = None
        self._offered: Optional[Placement] = None

    def step(self, say: Callable[[], Say], unable: bool = False) -> Optional[Agreed]:
        """`say` is asked once a round, and only rank 0's counts."""
        self._left -= 1
        self._made += 1
        self.acted = self._left <= 0
        if not self.acted:
            return None
        self._left = self._length
        if self._work is None:
            self._start(say(), unable)
            return None
        self._work.wait()
        return self._take()

    def _take(self) -> Agreed:
        follows, gives_up, unable_ranks, term, version, coming, *next_id, length = (
            self._values.tolist()
        )
        placement = None
        if coming and self._map is None:
            self._start_map()
        else:
            if coming:
                placement = self._received(PlacementId(*next_id))
            # What came is acted on first: a step does one thing of ours.
            self._work, self._left = None, 2
        self._length = length
        running = PlacementId(term, version)
        return Agreed(bool(follows), bool(gives_up), unable_ranks, running, placement)

    def _start(self, said: Say, unable: bool) -> None:
        self._map, self._offered = None, said.placement
        values = [0, 0, int(unable), 0, 0, 0, 0, 0, 0]
        if self._rank == 0:
            coming = (0, 0, 0) if said.placement is None else (1, *said.placement.id)
            values = [said.follows, said.gives_up, int(unable), *said.running, *coming,
                      self._next_length()]
        self._values = np.array(values, np.int64)
        self._sum(self._values)

    def _sum(self, values: Array) -> None:
        # The group's own call: all_reduce() around it takes longer than the rest of a step of ours.
        self._work = self._group.allreduce([torch.from_numpy(values)])

    def _next_length(self) -> int:
        """By how long steps took since the last round began."""
        now = time.monotonic()
        steps = ROUND_SECONDS * self._made / max(now - self._started, 1e-6)
        self._started, self._made = now, 0
        return int(min(max(steps, ROUND_STEPS[0]), ROUND_STEPS[1]))

    def _start_map(self) -> None:
        """Sums of one rank's numbers and the others' zeros: a group that only sums will do."""
        self._map = np.zeros(self._shape.layers * (self._shape.slots + 1), np.int32)
        if self._offered is not None:
            table, order = self._split_map()
            table[:] = self._offered.physical_to_logical.ravel()
            order[:] = -1
            order[: self._offered.changed_layers.size] = self._offered.changed_layers
        self._sum(self._map)

    def _split_map(self) -> list[Array]:
        """The map's numbers, and the changed layers', -1 padded."""
        assert self._map is not None
        return np.split(self._map, [self._shape.layers * self._shape.slots])

    def _received(self, placement_id: PlacementId) -> Placement:
        shape = self._shape
        table, order = self._split_map()
        return Placement(
            placement_id,
            table.reshape(shape.layers, shape.slots),
            shape.logical_experts,
            shape.gpus,
            changed_layers=order[order >= 0].copy(),
        )


def agree_on_start(group: Any, error: str) -> None:
    """Collective: raises on every rank where one of them has an `error`."""
    failed = torch.tensor([int(bool(error))])
    group.allreduce([failed]).wait()
    if error:
        raise RuntimeError(error)
    if failed.item():
        raise RuntimeError(f"{failed.item()} ranks have no link to the daemon: their logs say why")
