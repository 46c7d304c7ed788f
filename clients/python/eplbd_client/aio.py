# SPDX-License-Identifier: Apache-2.0
"""The same for asyncio. CountsPublisher and StateReporter never block: use them as they are."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Optional

import zmq.asyncio

from .placement import Placement
from .subscriber import Subscription


class AsyncPlacementSubscriber(Subscription):
    """`async for placement in subscriber`, or `await subscriber.next(timeout)`."""

    _contexts = zmq.asyncio.Context

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
            self._resubscribe_if_behind()
            if newest is not None:
                return newest

    async def __aiter__(self) -> AsyncIterator[Placement]:
        while True:
            yield await self._next()

    async def __aenter__(self) -> AsyncPlacementSubscriber:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()
