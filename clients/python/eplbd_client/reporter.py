# SPDX-License-Identifier: Apache-2.0
"""Tells the daemon which placement the group runs and how its last update went."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Sequence
from typing import Optional

from .curve import CurveKeys
from .placement import Placement, PlacementId
from .sender import Reporting, Sender, checked_source
from .wire import STATUSES, State


# So long without a heartbeat, and the next is a daemon's first one.
_SILENCE_SECONDS = 3.0


class StateReporter(Reporting[State]):
    """One per group, beside the rank that receives placements.

    Sends at start, at every report(), to each daemon that begins to listen, every ten seconds, and,
    where heartbeats are passed to heard(), at the first one and when one names another placement than
    runs. Never blocks or raises into the engine.
    """

    def __init__(
        self,
        deployment: str,
        endpoints: Sequence[str],
        source: str,
        placement: Placement,
        *,
        engine: str = "",
        features: Sequence[str] = (),
        repeat_seconds: float = 10.0,
        curve: Optional[CurveKeys] = None,
    ) -> None:
        self._lock = threading.Lock()
        self._answered = self._heard = float("-inf")
        self._last_ts = 0.0
        self._state = State(
            source=checked_source(source),
            engine=engine,
            epoch=time.time_ns(),
            ts=0.0,
            placement=placement,
            features=tuple(features),
        )
        self._sender = Sender(
            deployment,
            endpoints,
            bound=32,
            idle=self._copy,
            idle_seconds=repeat_seconds,
            merge=lambda dropped, following: None,
            curve=curve,
        )
        self._sender.put(self._copy())

    def report(
        self,
        placement: Placement,
        status: str = "idle",
        *,
        layers_done: Optional[int] = None,
        apply_seconds: Optional[float] = None,
        error: Optional[str] = None,
    ) -> None:
        """`placement` is what runs now: under `applying`, `failed`, `refused` still the old one."""
        if status not in STATUSES:
            self._sender.warn(f"status {status!r} is none of {', '.join(STATUSES)}")
            return
        with self._lock:
            state = self._state
            state.placement, state.status = placement, status
            state.layers_done, state.apply_seconds, state.error = layers_done, apply_seconds, error
        self._sender.put(self._copy())

    def heard(self, heartbeat_id: PlacementId) -> None:
        """A heartbeat named this placement. Answers at most once a second."""
        now = time.monotonic()
        first, self._heard = now - self._heard > _SILENCE_SECONDS, now
        same = heartbeat_id == self._state.placement.id
        if (same and not first) or now - self._answered < 0.9:
            return
        self._answered = now
        self._sender.put(self._copy())

    def _copy(self) -> State:
        with self._lock:
            self._last_ts = max(time.time(), self._last_ts + 1e-6)
            return dataclasses.replace(self._state, ts=self._last_ts)
