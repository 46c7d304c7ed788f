# SPDX-License-Identifier: Apache-2.0
"""When to rebalance, and to what: what the daemon runs, in process."""

from __future__ import annotations

import ctypes
import weakref
from dataclasses import dataclass
from typing import Any, Optional

import numpy as np

from . import _arrays, _library
from .solve import address, option_fields, topology


@dataclass(frozen=True)
class Decision:
    """One answer to "is the placement in force still good enough?"."""

    update: bool  # apply `placement`, then call Rebalancer.applied(id, now)
    id: int
    placement: Optional[np.ndarray]  # int32 [layers, slots] logical experts
    verdict: str  # a word: balanced, cooling_down, update ...
    detail: str  # a sentence with the numbers
    imbalance: float  # now, under the placement in force; 0: no tokens
    imbalance_after: float  # expected; 0: no candidate was made
    moves: int
    moves_of_one_gpu: int


class Rebalancer:
    """Decayed load windows, the rules of when an update pays, and the policy.

    `options` are those of the daemon's configuration: policy, hierarchical ("auto", "yes", "no"),
    seed, half_life_seconds (0: it tunes itself), imbalance (1.10), settle (1.05), cooldown_seconds
    (5), min_gain (0.01), min_tokens_per_gpu_step (64), updates_per_hour (120), moves_per_hour,
    max_moves, max_moves_per_gpu, max_layers (0: no limit).
    current: [layers, slots] what runs now; None: slot s holds expert s % logical_experts.
    Times `now` are seconds of any clock that does not go back. Not for two threads at a time.

    >>> import numpy as np
    >>> balancer = Rebalancer(layers=1, logical_experts=4, slots=6, gpus=2, min_tokens_per_gpu_step=0)
    >>> balancer.add(np.array([[100, 100, 900, 100]]), seconds=1, now=1)
    >>> decision = balancer.decide(now=1)
    >>> decision.verdict, decision.imbalance_after < decision.imbalance
    ('update', True)
    >>> balancer.applied(decision.id, now=1.5)
    >>> balancer.decide(now=2).verdict
    'cooling_down'
    """

    def __init__(
        self,
        *,
        layers: int,
        logical_experts: int,
        slots: int,
        gpus: int,
        nodes: int = 1,
        groups: int = 1,
        gpu_speeds: Any = None,
        current: Any = None,
        now: float = 0.0,
        **options: Any,
    ) -> None:
        self._counts_shape = (_arrays.whole(layers, "layers", 1), _arrays.whole(logical_experts, "logical_experts", 1))
        self._map_shape = (self._counts_shape[0], _arrays.whole(slots, "slots", 1))
        speeds = _arrays.speeds(gpu_speeds, _arrays.whole(gpus, "gpus", 1))
        shape = topology(
            *self._counts_shape, slots, gpus, _arrays.whole(nodes, "nodes", 1), _arrays.whole(groups, "groups", 1), speeds
        )
        chosen = _library.RebalancerOptions()
        option_fields(chosen, options)
        start = None if current is None else _arrays.placement(current, "current", self._map_shape)
        chosen.current = address(start)
        handle = ctypes.c_void_p()
        _library.call("eplb_rebalancer_new", shape, chosen, _arrays.real(now, "now"), ctypes.byref(handle))
        self._handle = handle
        weakref.finalize(self, _library.load().eplb_rebalancer_free, handle)

    def add(self, counts: Any, seconds: float, now: float, steps: int = 1) -> None:
        """[layers, logical_experts] routed tokens of the `seconds` that end at `now`, in so many forward passes."""
        tokens = _arrays.counts(counts, "counts", self._counts_shape)
        _library.call(
            "eplb_rebalancer_add", self._handle, address(tokens), _arrays.real(seconds, "seconds"),
            _arrays.whole(steps, "steps", 0, 2**32), _arrays.real(now, "now"),
        )

    def decide(self, now: float) -> Decision:
        """Asks once. After an update nothing more is decided until applied() or adopt()."""
        answer = _library.Decision()
        maps = np.empty(self._map_shape, np.int32)
        _library.call("eplb_rebalancer_decide", self._handle, _arrays.real(now, "now"), answer, address(maps))
        return Decision(
            update=bool(answer.update),
            id=answer.id,
            placement=maps if answer.update else None,
            verdict=answer.verdict.decode(),
            detail=answer.detail.decode(),
            imbalance=answer.imbalance,
            imbalance_after=answer.imbalance_after,
            moves=answer.moves,
            moves_of_one_gpu=answer.moves_of_one_gpu,
        )

    def applied(self, id: int, now: float) -> None:
        """The placement of that decision is in force now."""
        _library.call("eplb_rebalancer_applied", self._handle, _arrays.whole(id, "id", 0, 2**63), _arrays.real(now, "now"))

    def adopt(self, placement: Any, now: float) -> None:
        """Another placement is in force: also how to give up an update that could not be applied."""
        maps = _arrays.placement(placement, "placement", self._map_shape)
        _library.call(
            "eplb_rebalancer_adopt", self._handle, address(maps), _arrays.real(now, "now"),
            names={"physical_to_logical": "placement"},
        )

    def placement(self, now: float) -> np.ndarray:
        """[layers, slots] what is in force, int32."""
        maps = np.empty(self._map_shape, np.int32)
        _library.call("eplb_rebalancer_state", self._handle, _arrays.real(now, "now"), address(maps), None)
        return maps

    def loads(self, now: float) -> np.ndarray:
        """[layers, logical_experts] the load window."""
        window = np.empty(self._counts_shape)
        _library.call("eplb_rebalancer_state", self._handle, _arrays.real(now, "now"), None, address(window))
        return window
