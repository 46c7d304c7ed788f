# SPDX-License-Identifier: Apache-2.0
"""SGLang follows eplbd: an entry point of the group `sglang.srt.plugins`.

Run the engine with `--enable-eplb --expert-distribution-recorder-mode stat` and EPLBD_DEPLOYMENT
set. The adapter takes the place of what EPLBManager does at the end of a forward pass: every
COUNT_PASSES passes all ranks reduce what the recorder has and rank 0 sends it (scope global), and
when a placement comes, all ranks run EPLBManager.rebalance() from the same pass on, with SGLang's
algorithm pinned to that placement for as long. Where it only observes, SGLang goes on rebalancing
by itself, and what its recorder tells at each time is sent.

What was and was not run against SGLang's own files: see clients/python/README.md.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator
from typing import Any, Optional

import numpy as np
import torch
import torch.distributed as dist

from ..group import GroupChannel
from ..placement import Array, Placement
from ..publisher import CountsPublisher
from . import Settings, files, find_link, is_checked
from .channel import conclude, make_channel, own_group

logger = logging.getLogger("eplbd_client")

# The release branches of 0.5.12 to 0.5.14, and the main branch from which the others were cut until
# 2026-08-20; plugins came in April 2026. What was run of them: README.md.
CHECKED_VERSIONS = ("0.5.12", "0.5.13", "0.5.14", "0.5.15", "0.5.16", "0.5.17")
COUNT_PASSES = 50
_NEEDED = (
    "on_forward_pass_end",
    "rebalance",
    "_check_rebalance_needed",
    "_compute_update_layer_ids_chunks",
)


def register() -> None:
    """Called by SGLang in every process. Never raises: an engine must start without us."""
    try:
        settings = Settings.from_environment()
        if settings is None:
            return
        import sglang
        from sglang.srt.eplb import eplb_manager

        patch(eplb_manager.EPLBManager, settings, sglang.__version__)
    except Exception as problem:
        logger.warning("eplbd: the adapter stays out: %s", problem)


def patch(manager_class: Any, settings: Settings, version: str) -> None:
    """Puts the adapter into EPLBManager. Raises where the class is not what we know."""
    for name in _NEEDED:
        if not hasattr(manager_class, name):
            raise RuntimeError(f"SGLang {version}: EPLBManager has no {name}()")
    original = manager_class.on_forward_pass_end
    if getattr(original, "_eplbd", False):
        return
    applies = settings.unchecked or is_checked(version, CHECKED_VERSIONS, "SGLang")
    applies = applies and not settings.observe

    def on_forward_pass_end(self: Any) -> None:
        link = find_link(self, lambda: Link(self, settings, applies))
        if link is not None:
            link.step()
        if link is None or link.channel is None:
            original(self)

    on_forward_pass_end._eplbd = True  # type: ignore[attr-defined]
    manager_class.on_forward_pass_end = on_forward_pass_end


@contextlib.contextmanager
def pinned(manager: Any, table: torch.Tensor) -> Iterator[None]:
    """While this lasts, rebalance() goes, and its algorithm answers with the map that was given."""
    from sglang.srt.eplb.expert_location import ExpertLocationMetadata

    def init_by_eplb(server_args: Any, model_config: Any, *_: Any, **__: Any) -> Any:
        return ExpertLocationMetadata.init_by_mapping(
            server_args, model_config, physical_to_logical_map=table
        )

    own = ExpertLocationMetadata.__dict__["init_by_eplb"]
    ExpertLocationMetadata.init_by_eplb = staticmethod(init_by_eplb)
    manager._check_rebalance_needed = lambda *_: True
    try:
        yield
    finally:
        ExpertLocationMetadata.init_by_eplb = own
        del manager._check_rebalance_needed


class Link:
    """One EPLBManager and the daemon. The same calls in the same order on every rank."""

    def __init__(self, manager: Any, settings: Settings, applies: bool) -> None:
        from sglang.srt.eplb.expert_distribution import get_global_expert_distribution_recorder
        from sglang.srt.eplb.expert_location import get_global_expert_location_metadata

        self._recorder = get_global_expert_distribution_recorder()
        if not self._recorder.recording:
            raise RuntimeError("SGLang's expert distribution recorder is off")
        self._manager = manager
        self._metadata = get_global_expert_location_metadata()
        # The model's own layer numbers: SGLang's tables have rows for dense layers too.
        self._layer_ids = sorted(sum(manager._compute_update_layer_ids_chunks(), []))
        table = self._table()
        experts = int(self._metadata.num_logical_experts)
        gpus = int(self._metadata.ep_size)
        initial = Placement.initial(table.shape[0], experts, table.shape[1], gpus)
        self.running = Placement(initial.id, table, experts, gpus)
        self._passes = 0
        self._update: Optional[Iterator[None]] = None
        self.channel: Optional[GroupChannel] = None
        if applies:
            group = own_group(dist.group.WORLD)
            self.channel = make_channel(settings, self.running, group, self._refuse)
        self.publisher: Optional[CountsPublisher] = None
        if dist.get_rank() == 0:
            self.publisher = CountsPublisher(
                settings.deployment,
                settings.counts,
                "head",
                layers=table.shape[0],
                logical_experts=experts,
                engine=settings.engine,
                global_scope=True,
                curve=settings.curve,
            )
        self._dump = self._recorder.dump_record
        self._recorder.dump_record = self._dump_and_publish

    def _table(self) -> Array:
        table = self._metadata.physical_to_logical_map.cpu().numpy().astype(np.int32)
        return files.moe_layers(table, self._layer_ids)

    def _refuse(self, placement: Placement) -> str:
        return "SGLang cannot run with empty slots" if placement.gpus_down.size else ""

    def step(self) -> None:
        self._passes += 1
        if self.channel is None:
            return
        if self._update is None:
            placement = self.channel.receive(self.running)
            if placement is not None:
                self._update = self._apply(placement, self.channel)
        # What was counted under a map is converted by that map.
        if self._passes >= COUNT_PASSES or self._update is not None:
            self._recorder.dump_record(output_mode="object")
        if self._update is not None and next(self._update, self) is self:
            self._update = None

    def _dump_and_publish(self, output_mode: str = "file") -> Any:
        """Collective: the recorder reduces over the ranks, then starts from zero."""
        record = self._dump(output_mode=output_mode)
        if output_mode == "object" and self.publisher is not None and self._passes:
            counts = torch.as_tensor(record["logical_count"]).cpu().numpy()
            if counts.ndim == 3:  # [buffer, layers of the model, experts]
                counts = counts.sum(axis=0)
            counts = files.moe_layers(counts.astype(np.int64), self._layer_ids)
            self.publisher.publish(counts, steps=self._passes, running=self.running.id)
        self._passes = 0
        return record

    def _apply(self, placement: Placement, channel: GroupChannel) -> Iterator[None]:
        """One forward pass a turn: SGLang may be told to change some layers at a time."""
        started = time.monotonic()
        rows = self._metadata.physical_to_logical_map.shape[0]
        full = files.every_layer(placement, self._layer_ids, rows)
        update = self._manager.rebalance()
        try:
            while True:
                with pinned(self._manager, torch.from_numpy(full)):
                    if next(update, self) is self:
                        break
                yield
        except Exception as problem:
            channel.report(self.running, "failed", error=str(problem)[:500])
            raise  # SGLang's ranks are no longer alike: only SGLang can say what then
        self.running = conclude(channel, placement, self.running, self._table(), started)
