# SPDX-License-Identifier: Apache-2.0
"""Tells the daemon how many tokens each logical expert got."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any, Optional

import numpy as np

from .curve import CurveKeys
from .placement import Array, Placement, PlacementId, gpu_tokens, logical_counts
from .sender import Reporting, Sender, checked_source
from .wire import Counts


class CountsPublisher(Reporting[Counts]):
    """Adds up counts and sends the running counters; one object per rank that counts.

    publish() may be called from any thread, once a forward pass or less often. It never blocks and
    never raises: what is wrong is counted in `errors`, logged once a minute at most, and dropped.
    Because counters are cumulative, a message that is lost or dropped loses no load.
    """

    def __init__(
        self,
        deployment: str,
        endpoints: Sequence[str],
        source: str,
        *,
        layers: int,
        logical_experts: int,
        gpus: int = 0,
        engine: str = "",
        global_scope: bool = False,
        running: PlacementId = PlacementId(0, 0),
        idle_seconds: float = 5.0,
        queue_bound: int = 16,
        curve: Optional[CurveKeys] = None,
    ) -> None:
        """`gpus` > 0: gpu_tokens are told too. `global_scope`: counts were reduced over the group."""
        self._source = checked_source(source)
        self._engine = engine
        self._global_scope = global_scope
        self._epoch = time.time_ns()
        self._since = time.time()
        self._last_ts = self._since
        self._running = running
        # Modulo 2^32, as they are on the wire.
        self._totals = np.zeros((layers, logical_experts), np.uint32)
        self._gpu_totals = np.zeros((layers, gpus), np.uint32) if gpus else None
        self._lock = threading.Lock()
        self._sender = Sender(
            deployment,
            endpoints,
            bound=queue_bound,
            idle=self._idle,
            idle_seconds=idle_seconds,
            merge=_merge,
            curve=curve,
        )

    def publish(
        self,
        counts: Any,
        *,
        steps: int = 1,
        running: Optional[PlacementId] = None,
        gpu_tokens: Any = None,  # noqa: A002 - the wire's own word
    ) -> bool:
        """`counts` [layers, logical_experts]: tokens since the last call. False: dropped, see errors.

        `running` is the placement that the group runs now; it stays until another is named.
        `gpu_tokens` [layers, gpus]: tokens that GPUs really received since the last call.
        """
        try:
            new = _checked(counts, self._totals.shape).astype(np.uint32)
            new_gpu = None
            if gpu_tokens is not None and self._gpu_totals is not None:
                new_gpu = _checked(gpu_tokens, self._gpu_totals.shape).astype(np.uint32)
            new_steps = int(steps)
            named = None if running is None else PlacementId(*running)
            with self._lock:
                self._running = named or self._running
                self._totals += new
                if new_gpu is not None and self._gpu_totals is not None:
                    self._gpu_totals += new_gpu
                self._sender.put(self._message(new_steps))
            return True
        except Exception as error:  # an engine must not fail for its statistics
            self._sender.warn(f"counts of {self._source} dropped: {error}")
            return False

    def publish_physical(
        self, physical_counts: Any, placement: Placement, *, steps: int = 1
    ) -> bool:
        """Tokens per slot [layers, slots], counted under `placement` and no other."""
        try:
            physical = _checked(physical_counts, placement.physical_to_logical.shape)
            counts = logical_counts(physical, placement)
            per_gpu = gpu_tokens(physical, placement.gpus)
        except Exception as error:
            self._sender.warn(f"counts of {self._source} dropped: {error}")
            return False
        return self.publish(counts, steps=steps, running=placement.id, gpu_tokens=per_gpu)

    def _message(self, steps: int) -> Counts:
        # A clock that was set back must not stop the reports: time then creeps on.
        self._last_ts = max(time.time(), self._last_ts + 1e-6)
        return Counts(
            source=self._source,
            engine=self._engine,
            epoch=self._epoch,
            since=self._since,
            ts=self._last_ts,
            steps=steps,
            running=self._running,
            global_scope=self._global_scope,
            counts=self._totals.copy(),
            gpu_tokens=None if self._gpu_totals is None else self._gpu_totals.copy(),
        )

    def _idle(self) -> Optional[Counts]:
        with self._lock:
            return self._message(0)


def _checked(counts: Any, shape: tuple[int, ...]) -> Array:
    array = np.asarray(counts)
    if array.shape != shape:
        raise ValueError(f"the shape is {array.shape}, not {shape}")
    if array.dtype.kind not in "ui":
        raise TypeError(f"counts are integers, not {array.dtype}")
    if array.dtype.kind == "i" and array.size and array.min() < 0:
        raise ValueError("a count is negative")
    return array


def _merge(dropped: Counts, following: Counts) -> None:
    following.steps += dropped.steps
