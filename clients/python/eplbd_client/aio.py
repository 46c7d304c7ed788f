# SPDX-License-Identifier: Apache-2.0
"""The same for asyncio. CountsPublisher and StateReporter never block: use them as they are."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from typing import Optional

import zmq
import zmq.asyncio

from .curve import CurveKeys
from .placement import Placement
from .subscriber import Heard, PlacementSubscriber, resubscribe_now


class AsyncPlacementSubscriber(PlacementSubscriber):
    """`async for placement in subscriber`, or `await subscriber.next(timeout)`."""

    def __init__(
        self,
        deployment: str,
        endpoints: Sequence[str],
        running: Placement,
        *,
        heard: Optional[Heard] = None,
        stale_seconds: float = 5.0,
        curve: Optional[CurveKeys] = None,
        context: Optional[zmq.asyncio.Context] = None,
    ) -> None:
        super().__init__(
            deployment,
            endpoints,
            running,
            heard=heard,
            stale_seconds=stale_seconds,
            curve=curve,
            context=context or zmq.asyncio.Context.instance(),
        )

    def poll(self, timeout: float = 0.0) -> Optional[Placement]:
        raise TypeError("await next() instead: this subscriber belongs to an event loop")

    async def next(self, timeout: Optional[float] = None) -> Optional[Placement]:
        """The next placement above the one held; None when `timeout` seconds passed without one."""
        try:
            return await asyncio.wait_for(self._next(), timeout)
        except asyncio.TimeoutError:
            return None

    async def _next(self) -> Placement:
        while True:
            frames: list[bytes] = await self._socket.recv_multipart()  # type: ignore[misc]
            newest = self.tracker.feed(frames, time.monotonic())
            if resubscribe_now(self.tracker, self._resubscribed):
                self._resubscribed = time.monotonic()
                self._socket.unsubscribe(self._topic)
                self._socket.subscribe(self._topic)
            if newest is not None:
                return newest

    async def __aiter__(self) -> AsyncIterator[Placement]:
        while True:
            yield await self._next()

    async def __aenter__(self) -> AsyncPlacementSubscriber:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()
