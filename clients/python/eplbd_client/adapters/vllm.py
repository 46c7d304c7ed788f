# SPDX-License-Identifier: Apache-2.0
"""vLLM follows eplbd: an entry point of the group `vllm.general_plugins`.

Run the engine with `--enable-eplb --eplb-config '{"use_async": false, ...}'` and EPLBD_DEPLOYMENT
set. The adapter wraps EplbState.step: it reads the recorded counts before vLLM clears them, keeps
vLLM from rearranging on its own, and when a placement comes, has every rank rearrange to it between
the same two steps through vLLM's own transfer. Where EplbState lacks what
missing() names, the adapter stays out and says so; where it may count but not apply, it observes.

What was and was not run against vLLM's own files: see clients/python/README.md.
"""

from __future__ import annotations

import dataclasses
import inspect
import logging
import time
from typing import Any, Optional

import numpy as np
import torch
import torch.distributed as dist

from ..group import GroupChannel
from ..placement import Array, Placement
from ..publisher import CountsPublisher
from . import Settings, find_link, is_checked
from .channel import conclude, make_channel, own_group

logger = logging.getLogger("eplbd_client")

# Releases cut from the main branch between 2026-03-24 and 2026-08-14, of which every revision of
# vllm/distributed/eplb was run under this adapter (see README.md). 0.18 is out: its policies answer
# with three maps.
CHECKED_VERSIONS = ("0.19", "0.20", "0.21", "0.22", "0.23", "0.24", "0.25", "0.26", "0.27")
_STATE_KEYS = ("physical_to_logical_map", "expert_load_pass", "model")


def register() -> None:
    """Called by vLLM in every process. Never raises: an engine must start without us."""
    try:
        settings = Settings.from_environment()
        if settings is None:
            return
        import vllm
        from vllm.distributed.eplb import eplb_state

        patch(eplb_state.EplbState, settings, vllm.__version__)
    except Exception as problem:
        logger.warning("eplbd: the adapter stays out: %s", problem)


def patch(state_class: Any, settings: Settings, version: str) -> None:
    """Puts the adapter into EplbState. Raises where the class is not what we know."""
    problem = missing(state_class)
    if problem:
        raise RuntimeError(f"vLLM {version}: {problem}")
    checked = settings.unchecked or is_checked(version, CHECKED_VERSIONS, "vLLM")
    original_step = state_class.step
    if getattr(original_step, "_eplbd", False):
        return

    def step(
        self: Any, is_dummy: bool = False, is_profile: bool = False, log_stats: bool = False
    ) -> None:
        link = None if is_profile else find_link(self, lambda: Link(self, settings, checked))
        if link is not None:
            link.before(is_dummy)
        original_step(self, is_dummy=is_dummy, is_profile=is_profile, log_stats=log_stats)
        if link is not None:
            link.after()

    step._eplbd = True  # type: ignore[attr-defined]
    state_class.step = step
    if hasattr(state_class, "_should_record_current_step"):
        # vLLM records only near its own rearrangements; we need every step.
        state_class._should_record_current_step = lambda self, log_stats=False: True


def missing(state_class: Any) -> str:
    """The first thing that this adapter needs and EplbState does not have; "" when all is there."""
    wanted = {"step": ("is_dummy", "is_profile", "log_stats"), "rearrange": ("is_profile",)}
    for name, parameters in wanted.items():
        method = getattr(state_class, name, None)
        if method is None:
            return f"EplbState has no {name}()"
        found = inspect.signature(method).parameters
        for parameter in parameters:
            if parameter not in found:
                return f"EplbState.{name}() has no {parameter}"
    return ""


class PinnedPolicy:
    """In place of vLLM's policy for one call of rearrange(): answers with the map that was given."""

    def __init__(self, table: torch.Tensor) -> None:
        self._table = table

    def rebalance_experts(self, *_: Any, **__: Any) -> torch.Tensor:
        return self._table.clone()


class Link:
    """One EplbState and the daemon. The same calls in the same order on every rank."""

    def __init__(self, state: Any, settings: Settings, checked: bool) -> None:
        self._state = state
        models = list(state.model_states.values())
        self._model = models[0]
        for key in _STATE_KEYS:
            if not hasattr(self._model, key):
                raise RuntimeError(f"EplbModelState has no {key}")
        group = self._engine_group()
        self.running = self._running_map(dist.get_world_size(group))
        self._since_sent = 0
        self._sent = time.monotonic()
        self._total = torch.zeros_like(self._model.expert_load_pass, dtype=torch.int64)
        self.channel: Optional[GroupChannel] = None
        if not settings.observe and checked and self._can_apply(len(models)):
            self.channel = make_channel(settings, self.running, own_group(group), self._refuse)
        self.publisher = self._make_publisher(settings, group)

    # ---- vLLM's side ----

    def _engine_group(self) -> dist.ProcessGroup:
        from vllm.distributed.parallel_state import get_ep_group

        return get_ep_group().device_group

    def _tensor_parallel_rank(self) -> int:
        from vllm.distributed.parallel_state import get_tensor_model_parallel_rank

        return int(get_tensor_model_parallel_rank())

    def _table(self) -> Array:
        table: Array = self._model.physical_to_logical_map.cpu().numpy().astype(np.int32)
        return table

    def _running_map(self, gpus: int) -> Placement:
        table = self._table()
        experts = int(self._model.model.num_logical_experts)
        initial = Placement.initial(table.shape[0], experts, table.shape[1], gpus)
        return Placement(initial.id, table, experts, gpus)

    def _can_apply(self, models: int) -> bool:
        reason = ""
        if getattr(self._state, "is_async", False):
            reason = 'asynchronous EPLB moves weights by itself: set "use_async": false'
        elif models != 1:
            reason = "a draft model with experts of its own shares this EplbState"
        elif not hasattr(self._state, "policy"):
            reason = "EplbState has no policy"
        elif "tuple" in str(inspect.signature(self._state.policy.rebalance_experts)):
            reason = "this version's policies answer with three maps"
        if reason:
            logger.warning("eplbd: observing only: %s", reason)
        return not reason

    def _make_publisher(
        self, settings: Settings, group: dist.ProcessGroup
    ) -> Optional[CountsPublisher]:
        if self._tensor_parallel_rank() != 0:
            return None  # it sees the same tokens as tensor-parallel rank 0, which counts them
        return CountsPublisher(
            settings.deployment,
            settings.counts,
            f"ep{dist.get_rank(group)}",
            layers=self.running.layers,
            logical_experts=self.running.logical_experts,
            gpus=self.running.gpus,
            engine=settings.engine,
            curve=settings.curve,
        )

    def _refuse(self, placement: Placement) -> str:
        return "vLLM cannot run with empty slots" if placement.gpus_down.size else ""

    # ---- each step ----

    def before(self, is_dummy: bool) -> None:
        """Takes the counts before vLLM clears them, and keeps it from rearranging on its own."""
        if self._model.expert_load_pass.shape != self._total.shape:
            return  # scaled while it runs: another deployment now
        if not is_dummy:
            self._total += self._model.expert_load_pass
            self._since_sent += 1
        state = self._state
        due = state.expert_rearrangement_step + 1 >= state.expert_rearrangement_step_interval
        if due and self.channel is not None:
            state.expert_rearrangement_step = min(0, state.expert_rearrangement_step_interval - 2)
        # What was counted under a map is converted by that map.
        changes = (due and self.channel is None) or getattr(self._model, "rebalanced", False)
        if changes or time.monotonic() - self._sent >= 1.0:
            self._send()

    def _send(self) -> None:
        """One copy from the device a second."""
        self._sent = time.monotonic()
        if self.publisher is not None and self._since_sent:
            counted = dataclasses.replace(self.running, physical_to_logical=self._table())
            self.publisher.publish_physical(
                self._total.cpu().numpy(), counted, steps=self._since_sent
            )
        self._total.zero_()
        self._since_sent = 0

    def after(self) -> None:
        if self.channel is None:
            return
        placement = self.channel.receive(self.running)
        if placement is not None:
            self._apply(placement, self.channel)

    def _apply(self, placement: Placement, channel: GroupChannel) -> None:
        self._send()
        started = time.monotonic()
        own_policy = self._state.policy
        table = torch.from_numpy(placement.physical_to_logical.astype(np.int64))
        self._state.policy = PinnedPolicy(table)
        try:
            self._state.rearrange()
        except Exception as problem:
            channel.report(self.running, "failed", error=str(problem)[:500])
            raise  # vLLM's ranks are no longer alike: only vLLM can say what then
        finally:
            self._state.policy = own_policy
        self.running = conclude(channel, placement, self.running, self._table(), started)
