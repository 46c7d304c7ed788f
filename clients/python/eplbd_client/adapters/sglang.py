# SPDX-License-Identifier: Apache-2.0
"""SGLang follows eplbd: an entry point of the group `sglang.srt.plugins`.

Run the engine with `--enable-eplb --expert-distribution-recorder-mode stat` and EPLBD_DEPLOYMENT
set; see docs/sglang.md. The adapter reads what the recorder gathers in each forward pass and takes
the place of what EPLBManager does at its end: when a placement comes, all ranks run
EPLBManager.rebalance() from the same pass on, and SGLang's algorithm, which that asks, answers with
the daemon's map; all layers at once, or as many in a pass as --eplb-rebalance-layers-per-chunk says.
Where the daemon does not balance, SGLang does as it is configured, and what it runs is reported.

What was run against SGLang's own files: clients/python/README.md.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import logging
from collections.abc import Callable, Iterator
from typing import Any, Optional

import numpy as np
import torch
import torch.distributed as dist

from ..placement import Placement, PlacementId
from . import Settings, files, find_link, library, missing_name, start, why_not
from .channel import own_group
from .session import Session
from .tally import Tally

logger = logging.getLogger("eplbd_client")

_EPLB = "sglang.srt.eplb"
_COUNTS = (
    "eplb_manager:EPLBManager.on_forward_pass_end()",
    "eplb_manager:EPLBManager._compute_update_layer_ids_chunks()",
    "expert_distribution:_Accumulator.append(forward_pass_id, gatherer_key, single_pass_data)",
    "expert_location:get_global_expert_location_metadata()",
)
_APPLIES = (
    "eplb_manager:EPLBManager.rebalance()",
    "eplb_manager:EPLBManager._check_rebalance_needed(average_utilization_rate_over_window)",
    "eplb_algorithms:rebalance_experts(tokens_per_expert, num_physical_experts)",
)
# Before it all ranks had to see the same tokens but each chose its own replica of an expert.
_REPLICAS_WITHOUT_A2A = ("expert_location_dispatch:ExpertLocationDispatchInfo(rank_invariant)",)
# SGLang's private names that the adapter needs to act, by release; on one that is not here, or that
# lacks a name, it observes.
RELEASES = {
    release: _APPLIES for release in ("0.5.18", "0.5.19", "0.5.20", "0.5.21", "0.5.22", "0.5.23")
}


def register() -> None:
    """Called by SGLang in every process."""
    start("sglang", patch, use_library)


def patch(settings: Settings, version: str) -> None:
    """Puts the adapter into EPLBManager. Raises where the class is not what we know."""
    problem = missing_name(_EPLB, _COUNTS)
    if problem:
        raise RuntimeError(f"SGLang {version}: {problem}")
    manager_class = importlib.import_module(f"{_EPLB}.eplb_manager").EPLBManager
    original, original_init = manager_class.on_forward_pass_end, manager_class.__init__
    if getattr(original, "_eplbd", False):
        return
    reason = why_not(settings, "SGLang", version, _EPLB, RELEASES)

    @functools.wraps(original_init)
    def __init__(self: Any, *args: Any, **keys: Any) -> None:
        original_init(self, *args, **keys)
        self._eplbd_tap = tapped()

    def make(manager: Any) -> Link:
        if manager._eplbd_tap is None:
            raise RuntimeError("SGLang's expert distribution recorder is off")
        return Link(manager, settings, f"SGLang {version}", reason)

    def on_forward_pass_end(self: Any) -> None:
        link = find_link(self, lambda: make(self))
        if link is not None and self._eplbd_tap.outgrown():
            link.close()
            self._eplbd_tap.close()
            self._eplbd_tap = tapped()
            del self._eplbd_link
            link = find_link(self, lambda: make(self))
        if link is None or link.before():
            original(self)
        if link is not None:
            link.after()

    on_forward_pass_end._eplbd = True  # type: ignore[attr-defined]
    manager_class.__init__ = __init__
    manager_class.on_forward_pass_end = on_forward_pass_end


def use_library(name: str) -> None:
    """SGLang goes on by itself, with eplbd's policy `name` in place of its algorithm: no daemon."""
    algorithms = importlib.import_module(f"{_EPLB}.eplb_algorithms")
    algorithms.rebalance_experts = library.SglangAlgorithm(
        name, lambda: _metadata().physical_to_logical_map
    )
    logger.info("eplbd: SGLang balances by itself, with the policy %s", name)


def tapped() -> Optional[Tap]:
    """None: the recorder does not record, or is none that we know."""
    try:
        return Tap()
    except AttributeError:
        return None


class SteeredAlgorithm:
    """In place of SGLang's rebalance_experts(), which answers as ever where nothing is agreed on."""

    def __init__(self, own: Callable[..., Any]) -> None:
        self._own = own
        self._answer: Optional[Placement] = None

    def steer(self, placement: Optional[Placement]) -> None:
        """`placement` has a row for every layer of the model; None: SGLang's own answer."""
        self._answer = placement

    def __call__(self, *args: Any, **keys: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        answer = self._answer
        if answer is None:
            return self._own(*args, **keys)
        return tuple(  # type: ignore[return-value]
            torch.from_numpy(np.array(table, np.int64))
            for table in (
                answer.physical_to_logical,
                answer.logical_to_physical(),
                answer.logical_replica_count(),
            )
        )


class Tap:
    """Counts what SGLang's recorder gathers, pass by pass, from the manager's beginning on."""

    def __init__(self) -> None:
        distribution = importlib.import_module(f"{_EPLB}.expert_distribution")
        self.recorder = distribution.get_global_expert_distribution_recorder()
        self.metadata = _metadata()
        self.table = self.metadata.physical_to_logical_map
        experts, gpus = int(self.metadata.num_logical_experts), int(self.metadata.ep_size)
        self.tally = Tally(self.table, experts, gpus)
        self._accumulator = self.recorder._accumulator
        self._append = self._accumulator.append
        self._accumulator.append = self._count

    def _count(self, forward_pass_id: Any, key: Any, data: Any, *rest: Any, **keys: Any) -> Any:
        self.tally.add(data["global_physical_count"], self.metadata.physical_to_logical_map)
        return self._append(forward_pass_id, key, data, *rest, **keys)

    def outgrown(self) -> bool:
        """The group was scaled: another table, of another shape."""
        return _metadata().physical_to_logical_map.shape != self.table.shape

    def close(self) -> None:
        self._accumulator.append = self._append


class Link:
    """One EPLBManager and the daemon. The same calls in the same order on every rank."""

    def __init__(self, manager: Any, settings: Settings, title: str, reason: str) -> None:
        tap = manager._eplbd_tap
        if not tap.recorder.recording:
            raise RuntimeError("SGLang's expert distribution recorder is off")
        self._manager, self._tap = manager, tap
        table = tap.table
        # The model's own layer numbers: SGLang's tables have rows for dense layers too.
        self._layer_ids = sorted(sum(manager._compute_update_layer_ids_chunks(), []))
        tap.tally.rows = self._layer_ids
        running = Placement(
            PlacementId(0, 0),
            files.moe_layers(table.cpu().numpy(), self._layer_ids),
            int(tap.metadata.num_logical_experts),
            int(tap.metadata.ep_size),
        )
        self._without_a2a = _a2a_backend() == "none"
        group = own_group(dist.group.WORLD)
        # Without an all-to-all every rank sees every token: one of them counts.
        counts = group.rank() == 0 or not self._without_a2a
        self.session = Session(
            settings,
            title,
            running,
            group,
            why_not=reason,
            refuse=self._refuse,
            counts=counts,
        )
        self._update: Optional[Iterator[None]] = None
        self._own_moves = False
        algorithms = importlib.import_module(f"{_EPLB}.eplb_algorithms")
        own = algorithms.rebalance_experts
        self._algorithm = own if isinstance(own, SteeredAlgorithm) else SteeredAlgorithm(own)
        if not reason:
            algorithms.rebalance_experts = self._algorithm
            manager.rebalance = self._watched_rebalance

    def close(self) -> None:
        self._algorithm.steer(None)
        self._manager.__dict__.pop("rebalance", None)
        self.session.close()

    def _watched_rebalance(self) -> Iterator[None]:
        """SGLang's own, which may take several passes: nothing of ours begins in between."""
        self._own_moves = True
        try:
            yield from type(self._manager).rebalance(self._manager)
        finally:
            self._own_moves = False

    def _refuse(self, placement: Placement) -> str:
        if placement.has_empty_slots:
            return "SGLang cannot run with empty slots"
        if self._without_a2a and (placement.logical_replica_count() > 1).any():
            if missing_name(_EPLB, _REPLICAS_WITHOUT_A2A):
                return "replicas give wrong output with --moe-a2a-backend none before SGLang 0.5.18"
        return ""

    # ---- each pass ----

    def before(self) -> bool:
        """Whether SGLang does what it does at the end of a pass by itself."""
        session = self.session
        session.step()
        update = None if self._own_moves else session.begin()
        if update is not None:
            rows = self._tap.table.shape[0]
            full = files.every_layer(update.placement, self._layer_ids, rows)
            self._algorithm.steer(dataclasses.replace(update.placement, physical_to_logical=full))
            self._manager._check_rebalance_needed = lambda *_: True
            self._update = type(self._manager).rebalance(self._manager)
        return self._update is None and (self._own_moves or not session.follows)

    def after(self) -> None:
        if self._update is not None:
            self._move()
        tap = self._tap
        self.session.report(tap.tally, lambda: tap.metadata.physical_to_logical_map)

    def _move(self) -> None:
        """One pass's part of the update, by SGLang's own rebalance()."""
        assert self._update is not None
        self.session.progress()
        try:
            if next(self._update, self) is not self:
                return
        except Exception as problem:
            self._end()
            if self.session.desk is not None:
                self.session.desk.reporter.report(
                    self.session.running, "failed", error=str(problem)[:500]
                )
            raise  # SGLang's ranks are no longer alike: only SGLang can say what then
        self._end()
        self.session.over()

    def _end(self) -> None:
        self._update = None
        self._algorithm.steer(None)
        self._manager.__dict__.pop("_check_rebalance_needed", None)


def _metadata() -> Any:
    return importlib.import_module(f"{_EPLB}.expert_location").get_global_expert_location_metadata()


def _a2a_backend() -> str:
    from sglang.srt import runtime_context

    return str(runtime_context.get_exec().moe.moe_a2a_backend)
