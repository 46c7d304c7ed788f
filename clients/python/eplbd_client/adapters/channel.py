# SPDX-License-Identifier: Apache-2.0
"""What an adapter's ranks talk over, and rank 0's link to the daemon."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Optional

import numpy as np
import torch
import torch.distributed as dist

from ..group import GroupChannel
from ..placement import Array, Placement
from ..reporter import StateReporter
from ..subscriber import PlacementSubscriber
from . import Settings


def own_group(group: dist.ProcessGroup) -> dist.ProcessGroup:
    """A gloo group of the same ranks: nothing of ours gets in between the engine's collectives."""
    ranks = dist.get_process_group_ranks(group)
    try:
        # Pipeline stages make theirs each by itself.
        return dist.new_group(ranks, backend="gloo", use_local_synchronization=True)
    except TypeError:  # torch before 2.1
        return dist.new_group(ranks, backend="gloo")


def make_channel(
    settings: Settings,
    running: Placement,
    group: dist.ProcessGroup,
    refuse: Callable[[Placement], str],
) -> GroupChannel:
    """Collective. Raises on every rank where rank 0 cannot talk to the daemon."""
    link: Optional[tuple[PlacementSubscriber, StateReporter]] = None
    error = ""
    if dist.get_rank(group) == 0:
        try:
            link = _link(settings, running)
        except Exception as problem:
            error = str(problem) or type(problem).__name__
    ready = torch.tensor([int(not error)])
    dist.broadcast(ready, dist.get_process_group_ranks(group)[0], group=group)
    if not ready.item():
        raise RuntimeError(f"rank 0 has no link to the daemon: {error or 'its log says why'}")
    subscriber, reporter = link or (None, None)
    return GroupChannel(group, subscriber, reporter, refuse)


def _link(settings: Settings, running: Placement) -> tuple[PlacementSubscriber, StateReporter]:
    reporter = StateReporter(
        settings.deployment,
        settings.counts,
        "head",
        running,
        engine=settings.engine,
        curve=settings.curve,
    )
    subscriber = PlacementSubscriber(
        settings.deployment,
        settings.placements,
        running,
        heard=reporter.heard,
        curve=settings.curve,
    )
    return subscriber, reporter


def conclude(
    channel: GroupChannel, placement: Placement, running: Placement, table: Array, started: float
) -> Placement:
    """What runs after the engine was asked for `placement`: its own map, `table`, tells."""
    if np.array_equal(table, placement.physical_to_logical):
        channel.report(placement, "applied", apply_seconds=time.monotonic() - started)
        return placement
    kept = dataclasses.replace(running, physical_to_logical=table)
    channel.decline(kept)
    channel.report(kept, "failed", error="the engine kept a map of its own")
    return kept
