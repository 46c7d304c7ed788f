# SPDX-License-Identifier: Apache-2.0
"""One placement for given loads, and what it is worth."""

from __future__ import annotations

import ctypes
from typing import Any, Dict, Optional, Sequence, Tuple

import numpy as np

from . import _arrays, _library
from ._library import HIERARCHICAL, POLICIES

# What the parameters of rebalance_experts() are called in C.
_DROP_IN_NAMES = {
    "loads": "weight",
    "layers": "weight",
    "logical_experts": "weight",
    "slots": "num_replicas",
    "gpus": "num_gpus",
    "nodes": "num_nodes",
    "groups": "num_groups",
    "time_budget_seconds": "time_budget",
}


def address(array: Optional[np.ndarray]) -> Optional[int]:
    return None if array is None else array.ctypes.data


def topology(
    layers: int,
    logical_experts: int,
    slots: int,
    gpus: int,
    nodes: int = 1,
    groups: int = 1,
    gpu_speeds: Optional[np.ndarray] = None,
) -> _library.Topology:
    """`gpu_speeds` must outlive it."""
    shape = _library.Topology()
    shape.layers, shape.logical_experts = layers, logical_experts
    shape.slots, shape.gpus, shape.nodes, shape.groups = slots, gpus, nodes, groups
    shape.gpu_speeds = address(gpu_speeds)
    return shape


def rebalance_experts(
    weight: Any,
    num_replicas: int,
    num_groups: int,
    num_nodes: int,
    num_gpus: int,
    *,
    policy: str = "joint",
    seed: int = 0,
    current: Any = None,
    max_moves: int = 0,
    time_budget: float = 0.0,
    gpus_down: Sequence[int] = (),
) -> Tuple[Any, Any, Any]:
    """A placement for these loads, in the form of DeepSeek's function of this name.

    weight: [layers, logical_experts], tokens each expert got; numpy or torch, integers or floats.
    num_replicas: slots of a layer, over all GPUs; a multiple of num_gpus.
    num_groups, num_nodes: expert groups are kept on a node each where num_nodes divides
        num_groups; else placed globally.
    policy: joint (best balance), deepseek, evolved (as published), or incremental (few moves from
        `current`).
    current: [layers, num_replicas] the placement in force; what can stays where it lies.
    max_moves: weights to fetch, at most; 0 is no limit. Only incremental keeps to it; of the others
        a placement that takes more is a ValueError.
    time_budget: seconds that joint goes on searching; 0: until its own end.
    gpus_down: GPUs that hold nothing: their slots are -1.

    Returns (physical_to_logical_map [layers, num_replicas], logical_to_physical_map [layers,
    logical_experts, num_replicas - logical_experts + 1], -1 padded, expert_count [layers,
    logical_experts]), int64, of the kind that `weight` is.

    >>> import numpy as np
    >>> maps, slots_of, count = rebalance_experts(np.array([[90, 11, 10, 30]]), 6, 1, 1, 2)
    >>> maps.shape, slots_of.shape, count.tolist()
    ((1, 6), (1, 4, 3), [[2, 1, 1, 2]])
    """
    loads = _arrays.loads(weight, "weight")
    layers, experts = loads.shape
    slots = _arrays.whole(num_replicas, "num_replicas", 1)
    groups = _arrays.whole(num_groups, "num_groups", 1)
    nodes = _arrays.whole(num_nodes, "num_nodes", 1)
    gpus = _arrays.whole(num_gpus, "num_gpus", 1)
    if groups % nodes != 0:
        groups = nodes = 1
    shape = topology(layers, experts, slots, gpus, nodes, groups)

    options = _library.SolveOptions()
    options.policy = _arrays.choice(policy, "policy", POLICIES)
    options.seed = _arrays.whole(seed, "seed", 0, 2**64 - 1)
    options.max_moves = _arrays.whole(max_moves, "max_moves", 0, 2**63 - 1)
    options.time_budget_seconds = _arrays.real(time_budget, "time_budget")
    kept = None if current is None else _arrays.placement(current, "current", (layers, slots))
    options.current = address(kept)
    down = _arrays.gpu_numbers(gpus_down, "gpus_down")
    options.gpus_down, options.gpus_down_count = address(down), len(down)

    maps = np.empty((layers, slots), np.int32)
    ranks = np.empty_like(maps)
    _library.call(
        "eplb_solve", shape, address(loads), options, address(maps), address(ranks), None,
        names=_DROP_IN_NAMES,
    )
    width = slots - experts + 1
    slots_of = np.empty((layers, experts, width), np.int32)
    count = np.empty((layers, experts), np.int32)
    _library.call("eplb_replicas", shape, address(maps), address(ranks), width, address(slots_of), address(count))
    return _arrays.like(maps, weight), _arrays.like(slots_of, weight), _arrays.like(count, weight)


def initial_placement(layers: int, logical_experts: int, slots: int) -> np.ndarray:
    """[layers, slots]: slot s holds expert s % logical_experts, as vLLM starts.

    >>> initial_placement(1, 4, 6).tolist()
    [[0, 1, 2, 3, 0, 1]]
    """
    row = np.arange(_arrays.whole(slots, "slots", 1)) % _arrays.whole(logical_experts, "logical_experts", 1)
    return np.tile(row, (_arrays.whole(layers, "layers", 1), 1))


def imbalance(placement: Any, loads: Any, gpus: int, *, gpu_speeds: Any = None) -> Tuple[float, np.ndarray]:
    """Largest GPU load / mean GPU load: of the whole model (sums over layers), and of each layer.

    placement: [layers, slots] logical experts, -1 on GPUs that are down.
    loads: [layers, logical_experts].

    >>> whole, layers = imbalance([[0, 1, 2, 3]], [[30, 10, 10, 10]], 2)
    >>> round(whole, 3), layers.tolist() == [whole]
    (1.333, True)
    """
    tokens = _arrays.loads(loads, "loads")
    maps = _arrays.placement(placement, "placement", (tokens.shape[0], None))
    speeds = _arrays.speeds(gpu_speeds, _arrays.whole(gpus, "gpus", 1))
    shape = topology(*tokens.shape, maps.shape[1], gpus, gpu_speeds=speeds)
    layers = np.empty(len(tokens))
    whole = ctypes.c_double()
    _library.call(
        "eplb_imbalance", shape, address(maps), address(tokens), address(layers), ctypes.addressof(whole),
        names={"physical_to_logical": "placement"},
    )
    return whole.value, layers


def imbalance_bound(
    loads: Any, slots: int, gpus: int, *, nodes: int = 1, groups: int = 1, gpu_speeds: Any = None
) -> Tuple[float, np.ndarray]:
    """What no placement of these loads is below, proven: of the whole model, and of each layer."""
    tokens = _arrays.loads(loads, "loads")
    speeds = _arrays.speeds(gpu_speeds, _arrays.whole(gpus, "gpus", 1))
    shape = topology(
        *tokens.shape, _arrays.whole(slots, "slots", 1), gpus, _arrays.whole(nodes, "nodes", 1),
        _arrays.whole(groups, "groups", 1), speeds,
    )
    layers = np.empty(len(tokens))
    whole = ctypes.c_double()
    _library.call("eplb_bound", shape, address(tokens), None, address(layers), ctypes.addressof(whole))
    return whole.value, layers


def option_fields(options: Any, given: Dict[str, Any]) -> None:
    """Sets fields of a C struct of options by the names they have there."""
    types = dict(options._fields_)
    for name, value in given.items():
        if name == "policy":
            options.policy = _arrays.choice(value, name, POLICIES)
        elif name == "hierarchical":
            options.hierarchical = _arrays.choice(value, name, HIERARCHICAL)
        elif types.get(name) is ctypes.c_double:
            setattr(options, name, _arrays.real(value, name))
        elif name in types and name not in ("struct_size", "current"):
            setattr(options, name, _arrays.whole(value, name, 0, 2**63 - 1))
        else:
            raise TypeError(f"there is no option {name!r}")
