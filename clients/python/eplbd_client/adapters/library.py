# SPDX-License-Identifier: Apache-2.0
"""An engine's own load balancing with eplbd's policies, in process: no daemon, no socket.

    EPLBD_POLICY=incremental    few moves from the map in force; or joint, deepseek, evolved

The engine decides when, as it is configured; only its policy is another. Ranks must be alike: each
asks for itself, with the same loads, and gets the same answer.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Optional

import numpy as np
import torch

from ..placement import Array

_VARIABLE = "EPLBD_POLICY"


def policy_named(environment: Mapping[str, str] = os.environ) -> str:
    """ "": none is. Raises ImportError without the package, ValueError for a name it has not."""
    name = environment.get(_VARIABLE, "")
    if not name or environment.get("EPLBD_KILL_SWITCH", "").lower() in ("1", "true", "yes", "on"):
        return ""
    solve(np.ones((1, 2)), 2, 1, 1, 1, name, None)
    return name


def solve(
    weight: Any, slots: int, groups: int, nodes: int, gpus: int, policy: str, current: Optional[Array]
) -> tuple[Any, Any, Any]:
    """The package's rebalance_experts(). Without a complete map to start from, from scratch."""
    import eplbd

    if current is not None and (current.shape[1] != slots or (current < 0).any()):
        current = None
    if policy == "incremental" and current is None:
        policy = "joint"
    return eplbd.rebalance_experts(  # type: ignore[no-any-return]
        weight, slots, groups, nodes, gpus, policy=policy, current=current
    )


class VllmPolicy:
    """In vLLM's registry of policies."""

    def __init__(self, policy: str) -> None:
        self._policy = policy
        self.unchanged: frozenset[int] = frozenset()

    def rebalance_experts(
        self,
        weight: torch.Tensor,
        num_replicas: int,
        num_groups: int,
        num_nodes: int,
        num_ranks: int,
        old_global_expert_indices: Optional[torch.Tensor] = None,
    ) -> torch.Tensor:
        old = old_global_expert_indices
        current = None if old is None else old.numpy().astype(np.int32)
        groups = num_groups or 1
        answer = solve(weight, num_replicas, groups, num_nodes, num_ranks, self._policy, current)
        new: torch.Tensor = answer[0]
        self.unchanged = unchanged_layers(new, old)
        return new if old is None else new.to(old.dtype)


def unchanged_layers(new: torch.Tensor, old: Optional[torch.Tensor]) -> frozenset[int]:
    """Those that vLLM's worker need not show to the step; the last one ends its rearrangement."""
    if old is None or old.shape != new.shape:
        return frozenset()
    same = (new == old).all(dim=1)
    same[-1] = False
    return frozenset(same.nonzero().ravel().tolist())


class SglangAlgorithm:
    """In place of SGLang's rebalance_experts(). `current` is the map in force, a row a layer."""

    def __init__(self, policy: str, current: Any) -> None:
        self._policy = policy
        self._current = current

    def __call__(
        self,
        tokens_per_expert: torch.Tensor,
        num_physical_experts: int,
        num_local_physical_experts: int,
        num_groups: Optional[int],
        num_nodes: int,
        algorithm: Any = None,
    ) -> tuple[Any, Any, Any]:
        weight = tokens_per_expert.reshape(-1, *tokens_per_expert.shape[-2:]).sum(dim=0).cpu()
        gpus = num_physical_experts // num_local_physical_experts
        current = self._current().cpu().numpy().astype(np.int32)
        return solve(
            weight, num_physical_experts, num_groups or 1, num_nodes, gpus, self._policy, current
        )
