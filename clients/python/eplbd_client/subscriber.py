# SPDX-License-Identifier: Apache-2.0
"""Follows the placements of one deployment."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Optional

import zmq

from . import wire
from .curve import CurveKeys
from .placement import Placement, PlacementId
from .sender import configure, logger

Heard = Callable[[PlacementId], None]


class PlacementTracker:
    """What a follower knows: the newest placement and when the daemon was last heard. No socket.

    feed() takes a message and says whether a newer placement came. `behind` is true once a heartbeat
    named a placement above the one held: subscribe anew, and the daemon sends it again.
    """

    def __init__(self, deployment: str, running: Placement, heard: Optional[Heard] = None) -> None:
        self._topic = wire.topic_of(deployment)
        self._heard = heard
        self.placement = running
        self.announced = running.id
        self._declined = running.id
        self.mode = ""
        # Whether the newest placement heard has the held one's shape; None: none was heard.
        self.same_shape: Optional[bool] = None
        self.rejected = 0
        self._last_heard: Optional[float] = None

    @property
    def behind(self) -> bool:
        return self.announced > max(self.placement.id, self._declined)

    def decline(self, running: Placement) -> None:
        """The newest could not be applied: `running` still runs. It is taken when it comes again.

        The daemon publishes it again when it finds the time right; we do not ask for it.
        """
        self._declined = max(self._declined, self.placement.id)
        self.placement = running

    def silence(self, now: float) -> Optional[float]:
        """Seconds since the daemon was heard; None: never."""
        return None if self._last_heard is None else now - self._last_heard

    def feed(self, frames: Sequence[bytes], now: float) -> Optional[Placement]:
        """The new placement if this message brought one above what is held. Never raises."""
        try:
            return self._feed(frames, now)
        except Exception as error:
            self.rejected += 1
            if self.rejected == 1:
                logger.warning("eplbd: a message was dropped: %s", error)
            return None

    def _feed(self, frames: Sequence[bytes], now: float) -> Optional[Placement]:
        if len(frames) != 3:
            raise wire.WireError(f"{len(frames)} frames, not 3")
        if frames[0] != self._topic:
            return None  # a subscription is a prefix: another deployment's
        wire.unpack_sequence(frames[1])
        message = wire.decode(frames[2])
        if message is None:
            return None
        self._last_heard = now
        if isinstance(message, wire.Heartbeat):
            # With several daemons the highest counts, and one that fell behind must not lower it.
            self.announced = max(self.announced, message.id)
            self.mode = message.mode
            if self._heard:
                self._heard(message.id)
            return None
        self.same_shape = False
        self._check_shape(message)
        self.same_shape = True
        if message.id <= self.placement.id:
            return None
        self.placement = message
        self.announced = max(self.announced, message.id)
        return message

    def _check_shape(self, message: Placement) -> None:
        held = self.placement
        for name in ("layers", "slots", "logical_experts", "gpus"):
            if getattr(message, name) != getattr(held, name):
                raise wire.WireError(
                    f"a placement with {getattr(message, name)} {name}, this group has "
                    f"{getattr(held, name)}"
                )


class Subscription:
    """A socket that hears one deployment, and what it heard; subclasses say how to wait for more.

    Owns a socket, so it belongs to one thread. `endpoints` may name several daemons. `running` is
    what the group runs at the start, Placement.initial(...) as a rule: it gives the shape, and only
    what is above its (term, version) is taken. `heard` is called with the placement that each
    heartbeat names (StateReporter.heard).
    """

    _contexts: type[zmq.Context[Any]] = zmq.Context

    def __init__(
        self,
        deployment: str,
        endpoints: Sequence[str],
        running: Placement,
        *,
        heard: Optional[Heard] = None,
        stale_seconds: float = 5.0,
        curve: Optional[CurveKeys] = None,
        context: Optional[zmq.Context[Any]] = None,
    ) -> None:
        if not endpoints:
            raise ValueError("at least one endpoint, please")
        self.tracker = PlacementTracker(deployment, running, heard)
        self._topic = wire.topic_of(deployment)
        self._stale_seconds = stale_seconds
        self._resubscribed = float("-inf")
        self._started = time.monotonic()
        self._socket = (context or self._contexts.instance()).socket(zmq.SUB)
        configure(self._socket, curve)
        self._socket.maxmsgsize = wire.MAX_MESSAGE_BYTES
        self._socket.rcvhwm = 1000
        self._socket.subscribe(self._topic)
        try:
            for endpoint in endpoints:
                self._socket.connect(endpoint)
        except zmq.ZMQError:
            self.close()
            raise

    @property
    def placement(self) -> Placement:
        """The newest one taken; a daemon that is gone changes nothing."""
        return self.tracker.placement

    @property
    def stale(self) -> bool:
        """No daemon was heard for stale_seconds. The placement stays in force all the same."""
        now = time.monotonic()
        silence = self.tracker.silence(now)
        return (now - self._started if silence is None else silence) > self._stale_seconds

    def decline(self, running: Placement) -> None:
        """The newest placement could not be applied; see PlacementTracker."""
        self.tracker.decline(running)

    def close(self) -> None:
        self._socket.close(linger=0)

    def _resubscribe_if_behind(self) -> None:
        """A second apart, so that a placement on its way is not asked for over and over."""
        now = time.monotonic()
        if self.tracker.behind and now - self._resubscribed >= 1.0:
            self._resubscribed = now
            self._socket.unsubscribe(self._topic)
            self._socket.subscribe(self._topic)


class PlacementSubscriber(Subscription):
    """poll() between two forward passes."""

    def poll(self, timeout: float = 0.0) -> Optional[Placement]:
        """Waits up to `timeout` seconds; the newest placement if one came, else None.

        Several that came since the last call are one: a worker wants the latest.
        """
        deadline = time.monotonic() + timeout
        while True:
            newest = self._drain()
            left = deadline - time.monotonic()
            if newest is not None or left <= 0:
                return newest
            self._socket.poll(int(left * 1000) + 1)

    def _drain(self) -> Optional[Placement]:
        newest = None
        while True:
            try:
                frames = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                break
            newest = self.tracker.feed(frames, time.monotonic()) or newest
        self._resubscribe_if_behind()
        return newest

    def __enter__(self) -> PlacementSubscriber:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
