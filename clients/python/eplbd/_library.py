# SPDX-License-Identifier: Apache-2.0
"""libeplb.so.1 through ctypes: its structs, its calls, its errors as exceptions.

A call releases the interpreter lock, so that threads solve at the same time.
"""

from __future__ import annotations

import ctypes
import os
import pathlib
from ctypes import POINTER, c_char, c_double, c_int32, c_int64, c_size_t, c_uint32, c_uint64, c_void_p
from typing import Any, Dict, Mapping, Tuple

_NAME = "libeplb.so.1"

POLICIES = ("deepseek", "evolved", "joint", "incremental")
HIERARCHICAL = ("auto", "yes", "no")

_OK, _INVALID_ARGUMENT, _IMPOSSIBLE, _OUT_OF_MEMORY = range(4)


class _Sized(ctypes.Structure):
    """A struct that begins with its own size, so that a newer library knows an older caller."""

    _initialise = ""

    def __init__(self) -> None:
        super().__init__()
        getattr(load(), self._initialise)(ctypes.byref(self))


class Error(ctypes.Structure):
    _fields_ = [("argument", c_char * 32), ("message", c_char * 256)]


class Topology(_Sized):
    _initialise = "eplb_topology_init"
    _fields_ = [
        ("struct_size", c_size_t),
        ("layers", c_int32),
        ("logical_experts", c_int32),
        ("slots", c_int32),
        ("gpus", c_int32),
        ("nodes", c_int32),
        ("groups", c_int32),
        ("gpu_speeds", c_void_p),
    ]


class SolveOptions(_Sized):
    _initialise = "eplb_solve_options_init"
    _fields_ = [
        ("struct_size", c_size_t),
        ("policy", c_int32),
        ("hierarchical", c_int32),
        ("seed", c_uint64),
        ("current", c_void_p),
        ("gpus_down", c_void_p),
        ("gpus_down_count", c_size_t),
        ("max_moves", c_int64),
        ("max_moves_per_gpu", c_int64),
        ("settle", c_double),
        ("min_gain", c_double),
        ("time_budget_seconds", c_double),
    ]


class Solution(_Sized):
    _initialise = "eplb_solution_init"
    _fields_ = [
        ("struct_size", c_size_t),
        ("imbalance", c_double),
        ("moves", c_int64),
        ("moves_of_one_gpu", c_int64),
        ("hierarchical", c_int32),
        ("most_replicas", c_int32),
    ]


class RebalancerOptions(_Sized):
    _initialise = "eplb_rebalancer_options_init"
    _fields_ = [
        ("struct_size", c_size_t),
        ("policy", c_int32),
        ("hierarchical", c_int32),
        ("seed", c_uint64),
        ("half_life_seconds", c_double),
        ("imbalance", c_double),
        ("settle", c_double),
        ("cooldown_seconds", c_double),
        ("min_gain", c_double),
        ("min_tokens_per_gpu_step", c_int64),
        ("updates_per_hour", c_int64),
        ("moves_per_hour", c_int64),
        ("max_moves", c_int64),
        ("max_moves_per_gpu", c_int64),
        ("max_layers", c_int64),
        ("current", c_void_p),
    ]


class Decision(_Sized):
    _initialise = "eplb_decision_init"
    _fields_ = [
        ("struct_size", c_size_t),
        ("update", c_int32),
        ("id", c_uint64),
        ("imbalance", c_double),
        ("imbalance_after", c_double),
        ("moves", c_int64),
        ("moves_of_one_gpu", c_int64),
        ("verdict", c_char * 32),
        ("detail", c_char * 256),
    ]


_CALLS: Dict[str, Tuple[Any, ...]] = {
    "eplb_initial": (POINTER(Topology), c_void_p),
    "eplb_solve": (POINTER(Topology), c_void_p, POINTER(SolveOptions), c_void_p, c_void_p, POINTER(Solution)),
    "eplb_replicas": (POINTER(Topology), c_void_p, c_void_p, c_int32, c_void_p, c_void_p),
    "eplb_imbalance": (POINTER(Topology), c_void_p, c_void_p, c_void_p, c_void_p),
    "eplb_bound": (POINTER(Topology), c_void_p, POINTER(SolveOptions), c_void_p, c_void_p),
    "eplb_check": (POINTER(Topology), c_void_p),
    "eplb_rebalancer_new": (POINTER(Topology), POINTER(RebalancerOptions), c_double, POINTER(c_void_p)),
    "eplb_rebalancer_add": (c_void_p, c_void_p, c_double, c_uint64, c_double),
    "eplb_rebalancer_decide": (c_void_p, c_double, POINTER(Decision), c_void_p),
    "eplb_rebalancer_applied": (c_void_p, c_uint64, c_double),
    "eplb_rebalancer_adopt": (c_void_p, c_void_p, c_double),
    "eplb_rebalancer_state": (c_void_p, c_double, c_void_p, c_void_p),
}

_loaded: Any = None


def _open() -> ctypes.CDLL:
    named = os.environ.get("EPLB_LIBRARY")
    if named:
        return ctypes.CDLL(named)
    beside = pathlib.Path(__file__).with_name(_NAME)
    return ctypes.CDLL(str(beside) if beside.exists() else _NAME)


def load() -> ctypes.CDLL:
    """The one in $EPLB_LIBRARY, the one that came with this package, or the system's."""
    global _loaded
    if _loaded is None:
        loaded = _open()
        for name, arguments in _CALLS.items():
            function = getattr(loaded, name)
            function.argtypes = (*arguments, POINTER(Error))
            function.restype = c_int32
        loaded.eplb_rebalancer_free.argtypes = (c_void_p,)
        loaded.eplb_rebalancer_free.restype = None
        loaded.eplb_version.restype = ctypes.c_char_p
        _loaded = loaded
    return _loaded


def call(name: str, *arguments: Any, names: Mapping[str, str] = {}) -> None:
    """Calls it. `names`: what the caller's Python calls the arguments of C."""
    error = Error()
    status = getattr(load(), name)(*arguments, ctypes.byref(error))
    if status == _OK:
        return
    message = error.message.decode(errors="replace")
    argument = error.argument.decode(errors="replace")
    if status == _OUT_OF_MEMORY:
        raise MemoryError(message)
    if status not in (_INVALID_ARGUMENT, _IMPOSSIBLE):
        raise RuntimeError(message)
    raise ValueError(f"{names.get(argument, argument)}: {message}" if argument else message)
