# SPDX-License-Identifier: Apache-2.0
"""vLLM follows eplbd: an entry point of the group `vllm.general_plugins`.

Run the engine with `--enable-eplb` and EPLBD_DEPLOYMENT set; see docs/vllm.md. The adapter wraps
EplbState.step and stands in for vLLM's policy. When a placement comes, every rank lets vLLM begin a
rearrangement in the same step, and the policy, which vLLM asks on every rank, answers with the
daemon's map. The rest is vLLM's: its worker thread, its buffer and a layer a step where EPLB is
asynchronous, one pause where it is not. Until then it is kept from rearranging by itself; where the
daemon does not balance, vLLM does as it is configured, and what it runs is reported.

What was run against vLLM's own files: clients/python/README.md.
"""

from __future__ import annotations

import importlib
import logging
from typing import Any, Optional, Union

import torch
import torch.distributed as dist

from ..placement import Placement, PlacementId
from . import Settings, find_link, library, missing_name, start, why_not
from .channel import own_group
from .session import Session
from .tally import Tally

logger = logging.getLogger("eplbd_client")

_EPLB = "vllm.distributed.eplb"
_COUNTS = (
    "eplb_state:EplbState.step(is_dummy, is_profile, log_stats)",
    "eplb_state:EplbModelState(physical_to_logical_map, expert_load_pass, model)",
)
_APPLIES = (
    "eplb_state:EplbState.rearrange(is_profile, rank_mapping)",
    "policy.abstract:AbstractEplbPolicy.rebalance_experts(weight, num_replicas, num_groups, "
    "num_nodes, num_ranks, old_global_expert_indices)",
)
_WORKER = (
    "eplb_state:EplbModelState(rebalanced, pending_result, expert_buffer, communicator)",
    "async_worker:AsyncEplbLayerResult(layer_idx, new_physical_to_logical_map, consumed_event)",
    "eplb_communicator:TorchDistGlooStagedEplbCommunicator(cpu_group)",
)
# vLLM's private names that the adapter needs to act, by release; on one that is not here, or that
# lacks a name, it observes.
RELEASES = {
    release: _APPLIES + _WORKER for release in ("0.28", "0.29", "0.30", "0.31", "0.32", "0.33")
}


def register() -> None:
    """Called by vLLM in every process."""
    start("vllm", patch, use_library)


def patch(settings: Settings, version: str) -> None:
    """Puts the adapter into EplbState. Raises where the class is not what we know."""
    problem = missing_name(_EPLB, _COUNTS)
    if problem:
        raise RuntimeError(f"vLLM {version}: {problem}")
    state_class = importlib.import_module(f"{_EPLB}.eplb_state").EplbState
    original_step = state_class.step
    if getattr(original_step, "_eplbd", False):
        return
    reason = why_not(settings, "vLLM", version, _EPLB, RELEASES)

    def make(state: Any) -> Link:
        return Link(state, settings, f"vLLM {version}", reason)

    def step(
        self: Any, is_dummy: bool = False, is_profile: bool = False, log_stats: bool = False
    ) -> None:
        link = None if is_profile else find_link(self, lambda: make(self))
        if link is not None and link.outgrown():
            link.close()
            del self._eplbd_link
            link = find_link(self, lambda: make(self))
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


def use_library(name: str) -> None:
    """vLLM goes on by itself, with eplbd's policy `name` in place of its own: no daemon."""
    policy = library.VllmPolicy(name)
    importlib.import_module(f"{_EPLB}.policy").EPLB_POLICIES["default"] = policy
    if not missing_name(_EPLB, _WORKER):
        skip_unchanged(policy)
    logger.info("eplbd: vLLM balances by itself, with the policy %s", name)


class SteeredPolicy:
    """In place of vLLM's policy, which answers as ever where nothing else is agreed on.

    A rearrangement asks it once a model, in the order of EplbState.model_states: in the worker's
    thread where EPLB is asynchronous.
    """

    def __init__(self, own: Any, models: int, main: int) -> None:
        self._own = own
        self._models = models
        self._main = main
        self._asked = 0
        self._table: Optional[torch.Tensor] = None
        self._others_only = False
        self.unchanged: frozenset[int] = frozenset()  # layers that the worker need not show

    def own(self) -> None:
        self._table, self._others_only = None, False

    def steer(self, table: torch.Tensor) -> None:
        """The main model moves to `table`, the others stay as they are."""
        self._asked, self._table, self._others_only = 0, table, False

    def others(self) -> None:
        """The main model stays as it is, the others get what vLLM's policy says."""
        self._asked, self._table, self._others_only = 0, None, True

    def rebalance_experts(self, *args: Any, **keys: Any) -> torch.Tensor:
        old = keys.get("old_global_expert_indices", args[5] if len(args) > 5 else None)
        is_main = self._asked % self._models == self._main
        self._asked += 1
        self.unchanged = frozenset()
        if old is None or (self._table is None and not (self._others_only and is_main)):
            return self._own.rebalance_experts(*args, **keys)
        new = self._table.to(old.dtype) if is_main and self._table is not None else old.clone()
        self.unchanged = library.unchanged_layers(new, old)
        return new


def skip_unchanged(policy: Union[SteeredPolicy, library.VllmPolicy]) -> None:
    """Lets vLLM's worker go on at once from a layer that stays: each would cost the update a step."""
    worker = importlib.import_module(f"{_EPLB}.async_worker")
    result_class = getattr(worker.AsyncEplbLayerResult, "_eplbd", worker.AsyncEplbLayerResult)

    def result(**keys: Any) -> Any:
        if keys["layer_idx"] not in policy.unchanged:
            return result_class(**keys)
        keys["consumed_event"].record()
        return None

    result._eplbd = result_class  # type: ignore[attr-defined]
    worker.AsyncEplbLayerResult = result


class Link:
    """One EplbState and the daemon. The same calls in the same order on every rank."""

    def __init__(self, state: Any, settings: Settings, title: str, reason: str) -> None:
        self._state = state
        models = list(state.model_states.values())
        self._model = max(models, key=_rank_as_main)
        self._engine_group = _ep_group().device_group
        gpus = self._engine_group.size()
        self._table = self._model.physical_to_logical_map
        experts = int(self._model.model.num_logical_experts)
        table = self._table.cpu().numpy()
        running = Placement(PlacementId(0, 0), table, experts, gpus)
        reason = reason or ("" if hasattr(state, "policy") else "EplbState has no policy")
        self._policy = SteeredPolicy(
            getattr(state, "policy", None),
            len(models),
            [model is self._model for model in models].index(True),
        )
        self._group = _agreement_group()
        self._title = title
        kind = "asynchronous" if state.is_async else "synchronous"
        self.session = Session(
            settings,
            f"{title} ({kind} EPLB)",
            running,
            self._group,
            why_not=reason,
            refuse=_refuse,
            counts=_tensor_parallel_rank() == 0,
        )
        self._tally = Tally(self._table, experts, gpus)
        self._seen: Any = None
        if not reason:
            state.policy = self._policy
            skip_unchanged(self._policy)

    def outgrown(self) -> bool:
        """The group was scaled, or the model loaded anew."""
        table = self._model.physical_to_logical_map
        return (
            table.shape != self._table.shape
            or all(model is not self._model for model in self._state.model_states.values())
            or _ep_group().device_group is not self._engine_group
        )

    def close(self) -> None:
        if self._state.__dict__.get("policy") is self._policy:
            self._state.policy = self._policy._own
        self.session.close()

    # ---- each step ----

    def before(self, is_dummy: bool) -> None:
        model, session = self._model, self.session
        if not is_dummy:
            self._tally.add(model.expert_load_pass, model.physical_to_logical_map)
        session.step()
        if session.gives_up:
            self._give_up()
        self._steer()

    def _busy(self) -> bool:
        """vLLM's worker moves weights; the same on every rank."""
        return any(getattr(m, "rebalanced", False) for m in self._state.model_states.values())

    def _steer(self) -> None:
        """Lets vLLM's step rearrange, or keeps it from that."""
        state, session = self._state, self.session
        busy = self._busy()
        update = None if busy else session.begin()
        interval = state.expert_rearrangement_step_interval
        due = state.expert_rearrangement_step + 1 >= interval
        if update is not None:
            self._policy.steer(torch.from_numpy(update.placement.physical_to_logical.copy()))
            state.expert_rearrangement_step = interval - 1
        elif due and not session.follows and session.update is None:
            if not busy:
                self._policy.own()
        elif due and not busy and session.update is None and len(state.model_states) > 1:
            self._policy.others()
        elif due:
            state.expert_rearrangement_step = min(0, interval - 2)

    def after(self) -> None:
        session = self.session
        if session.update is not None:
            result = getattr(self._model, "pending_result", None)
            if result is not self._seen:
                self._seen = result
                session.progress()
            if not self._busy():
                session.over("" if self._state.is_async else _rocm_check())
                self._policy.own()
        session.report(self._tally, lambda: self._model.physical_to_logical_map)

    def _give_up(self) -> None:
        """vLLM's worker is dead or hangs. What it holds is left to it, and vLLM goes on without it:
        the next update moves weights in vLLM's step, through a buffer and a group of our own."""
        state = self._state
        dead = state.async_worker is not None and not state.async_worker.is_alive()
        error = "vLLM's EPLB thread " + ("is dead" if dead else "gets no further")
        try:
            communicators = importlib.import_module(f"{_EPLB}.eplb_communicator")
            for model in state.model_states.values():
                weights = model.model.expert_weights[0]
                buffer = [torch.empty_like(tensor) for tensor in weights]
                model.communicator = communicators.TorchDistGlooStagedEplbCommunicator(self._group)
                model.expert_buffer, model.rebalanced, model.pending_result = buffer, False, None
            state.is_async = False
            self.session.title = f"{self._title} (synchronous EPLB)"
            error += "; synchronous EPLB from now on"
        except Exception as problem:
            self.session.unable = True
            error += f", and nothing took its place: {problem}"
        self.session.over(error)
        self._policy.own()


def _rank_as_main(model: Any) -> tuple[bool, int]:
    """A draft model's name says so since 0.32; before, it is the one with few layers."""
    name = str(getattr(model, "model_name", ""))
    return not name.endswith("(draft)"), int(model.physical_to_logical_map.shape[0])


def _refuse(placement: Placement) -> str:
    return "vLLM cannot run with empty slots" if placement.has_empty_slots else ""


def _ep_group() -> Any:
    from vllm.distributed.parallel_state import get_ep_group

    return get_ep_group()


def _agreement_group() -> Any:
    coordinator = _ep_group()
    try:
        return own_group(coordinator.device_group)
    except (KeyError, ValueError, RuntimeError):
        # Elastic expert parallelism: torch.distributed does not know this group. Only vLLM's main
        # thread uses it, and so do we, in the same order on every rank.
        return coordinator.cpu_group


def _rocm_check() -> str:
    """Why a synchronous update may not have been done."""
    from vllm.platforms import current_platform

    return "vLLM's own check on ROCm saw too little gain" if current_platform.is_rocm() else ""


def _tensor_parallel_rank() -> int:
    from vllm.distributed.parallel_state import get_tensor_model_parallel_rank

    return int(get_tensor_model_parallel_rank())
