# SPDX-License-Identifier: Apache-2.0
"""SGLang follows eplbd: an entry point of the group `sglang.srt.plugins`.

Run the engine with `--enable-eplb --expert-distribution-recorder-mode stat` and EPLBD_DEPLOYMENT
set. The adapter takes the place of what EPLBManager does at the end of a forward pass: every
COUNT_PASSES passes all ranks reduce what the recorder has and rank 0 sends it (scope global), and
when a placement comes, all ranks call ModelRunner.update_expert_location in the same pass.
SGLang's own rebalancing is off, also while only observing: both would empty the one recorder.

What was and was not run against SGLang's own files: see clients/python/README.md.
"""

from __future__ import annotations

import inspect
import logging
import time
from typing import Any, Optional

import numpy as np
import torch
import torch.distributed as dist

from ..group import GroupChannel
from ..placement import Placement
from ..publisher import CountsPublisher
from . import Settings, files, is_checked
from .channel import make_channel, own_group

logger = logging.getLogger("eplbd_client")

# EPLBManager was read in the main branch of 2025 and early 2026, between these releases.
CHECKED_VERSIONS = ("0.5",)
COUNT_PASSES = 50


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
    if "model_runner" not in inspect.signature(manager_class.__init__).parameters:
        raise RuntimeError(f"SGLang {version}: EPLBManager takes no model_runner")
    original = manager_class.on_forward_pass_end
    if getattr(original, "_eplbd", False):
        return
    checked = settings.unchecked or is_checked(version, CHECKED_VERSIONS, "SGLang")

    def on_forward_pass_end(self: Any) -> None:
        link = self.__dict__.get("_eplbd_link")
        if link is None:
            link = self._eplbd_link = Link(self, settings, checked and not settings.observe)
        link.step()

    on_forward_pass_end._eplbd = True  # type: ignore[attr-defined]
    manager_class.on_forward_pass_end = on_forward_pass_end


class Link:
    """One EPLBManager and the daemon. The same calls in the same order on every rank."""

    def __init__(self, manager: Any, settings: Settings, applies: bool) -> None:
        from sglang.srt.eplb.expert_location import get_global_expert_location_metadata

        self._runner = manager._model_runner
        metadata = get_global_expert_location_metadata()
        # The model's own layer numbers: SGLang's tables have rows for dense layers too.
        self._layer_ids = sorted(self._runner.model.routed_experts_weights_of_layer)
        self._model_layers = int(metadata.physical_to_logical_map.shape[0])
        table = files.moe_layers(
            metadata.physical_to_logical_map.cpu().numpy().astype(np.int32), self._layer_ids
        )
        experts = int(metadata.num_logical_experts)
        gpus = int(metadata.ep_size)
        initial = Placement.initial(table.shape[0], experts, table.shape[1], gpus)
        self.running = Placement(initial.id, table, experts, gpus)
        self._passes = 0
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
        self.channel: Optional[GroupChannel] = None
        if applies:
            group = own_group(dist.group.WORLD)
            self.channel = make_channel(settings, self.running, group, self._refuse)

    def step(self) -> None:
        self._passes += 1
        if self._passes >= COUNT_PASSES:
            self._count()
        if self.channel is not None:
            placement = self.channel.receive(self.running)
            if placement is not None:
                self._apply(placement, self.channel)

    def _refuse(self, placement: Placement) -> str:
        return "SGLang cannot run with empty slots" if placement.gpus_down.size else ""

    def _count(self) -> None:
        """Collective: the recorder reduces over the ranks, then starts from zero."""
        from sglang.srt.eplb.expert_distribution import get_global_expert_distribution_recorder

        record = get_global_expert_distribution_recorder().dump_record(output_mode="object")
        if self.publisher is not None:
            counts = torch.as_tensor(record["logical_count"]).cpu().numpy()
            if counts.ndim == 3:  # [buffer, layers of the model, experts]
                counts = counts.sum(axis=0)
            counts = files.moe_layers(counts.astype(np.int64), self._layer_ids)
            self.publisher.publish(counts, steps=self._passes, running=self.running.id)
        self._passes = 0

    def _apply(self, placement: Placement, channel: GroupChannel) -> None:
        from sglang.srt.eplb.expert_location import ExpertLocationMetadata

        started = time.monotonic()
        table = files.every_layer(placement, self._layer_ids, self._model_layers)
        changed = [self._layer_ids[i] for i in placement.layers_changed_from(self.running)]
        arguments: dict[str, Any] = {"physical_to_logical_map": torch.from_numpy(table)}
        known = inspect.signature(ExpertLocationMetadata.init_by_mapping).parameters
        if "moe_ep_rank" in known:
            arguments["moe_ep_rank"] = getattr(self._runner, "moe_ep_rank", None)
        try:
            metadata = ExpertLocationMetadata.init_by_mapping(
                self._runner.server_args, self._runner.model_config, **arguments
            )
            self._runner.update_expert_location(metadata, update_layer_ids=changed)
        except Exception as problem:
            channel.report(self.running, "failed", error=str(problem)[:500])
            raise  # SGLang's ranks are no longer alike: only SGLang can say what then
        self.running = placement
        channel.report(placement, "applied", apply_seconds=time.monotonic() - started)
