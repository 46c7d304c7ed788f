# SPDX-License-Identifier: Apache-2.0
"""What an adapter's ranks talk over, and rank 0's link to the daemon."""

from __future__ import annotations

from collections.abc import Callable

import torch.distributed as dist

from ..group import GroupChannel
from ..placement import Placement
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
    if dist.get_rank(group) != 0:
        return GroupChannel(group)
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
    return GroupChannel(group, subscriber, reporter, refuse)
