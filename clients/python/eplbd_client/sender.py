# SPDX-License-Identifier: Apache-2.0
"""A thread that owns a publishing socket, so that an engine's step never waits for one."""

from __future__ import annotations

import collections
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from typing import Generic, Optional, Protocol, TypeVar

import zmq

from . import wire
from .curve import CurveKeys

logger = logging.getLogger("eplbd_client")

_HANDSHAKE_MS = 10_000
_HEARTBEAT_MS = 5_000


class Message(Protocol):
    def encode(self) -> bytes: ...


M = TypeVar("M", bound=Message)
R = TypeVar("R")


def configure(zmq_socket: zmq.Socket[bytes], curve: Optional[CurveKeys]) -> None:
    """What every socket of ours has: a daemon that vanished is noticed, a closing one never waits."""
    zmq_socket.linger = 0
    zmq_socket.reconnect_ivl = 100
    zmq_socket.reconnect_ivl_max = 2_000
    zmq_socket.handshake_ivl = _HANDSHAKE_MS
    zmq_socket.heartbeat_ivl = _HEARTBEAT_MS
    zmq_socket.heartbeat_timeout = 3 * _HEARTBEAT_MS
    if curve:
        curve.apply(zmq_socket)


class Sender(Generic[M]):
    """Sends what is put in, in order, once a daemon is there; keeps the newest `bound` until then.

    `merge(dropped, next)` gives the oldest message's remains to the one after it. `idle()` makes a
    message when nothing was put in for `idle_seconds`, or when another daemon begins to listen. Both
    run without any lock of the caller's.
    """

    def __init__(
        self,
        deployment: str,
        endpoints: Sequence[str],
        *,
        bound: int,
        idle: Callable[[], Optional[M]],
        idle_seconds: float,
        merge: Callable[[M, M], None],
        curve: Optional[CurveKeys] = None,
    ) -> None:
        if bound < 1 or not endpoints:
            raise ValueError("a bound of at least 1 and at least one endpoint, please")
        self._topic = wire.topic_of(deployment)
        self._bound = bound
        self._idle = idle
        self._idle_seconds = idle_seconds
        self._merge = merge
        self._pending: collections.deque[M] = collections.deque()
        self._lock = threading.Lock()
        self._closing = False
        self._warned = float("-inf")
        self.sent = 0
        self.dropped = 0
        self.errors = 0
        self._context = zmq.Context()
        # XPUB speaks PUB's protocol, and tells when a daemon came or went: what is put in while
        # nobody listens waits here, bounded, instead of vanishing in the library.
        self._socket = self._context.socket(zmq.XPUB)
        configure(self._socket, curve)
        self._socket.immediate = True
        self._socket.xpub_verbose = True  # each daemon's subscription, not the first one's alone
        self._socket.sndhwm = 64
        try:
            for endpoint in endpoints:
                self._socket.connect(endpoint)
        except zmq.ZMQError:
            self._context.destroy(linger=0)
            raise
        self._wake_in, self._wake_out = socket.socketpair()
        self._wake_in.setblocking(False)
        self._wake_out.setblocking(False)
        self._thread = threading.Thread(target=self._run, name="eplbd-sender", daemon=True)
        self._pid = os.getpid()
        self._thread.start()

    def put(self, message: M) -> None:
        """Never blocks: takes a short lock that no system call is made under."""
        with self._lock:
            self._pending.append(message)
            if len(self._pending) > self._bound:
                oldest = self._pending.popleft()
                self._merge(oldest, self._pending[0])
                self.dropped += 1
        self._wake()

    def warn(self, what: str) -> None:
        """Counts an error and logs it, once a minute at most: an engine's log is not ours to fill."""
        self.errors += 1
        now = time.monotonic()
        if now - self._warned >= 60:
            self._warned = now
            logger.warning("eplbd: %s (%d errors so far)", what, self.errors)

    @property
    def connected(self) -> bool:
        return self._subscribed

    def flush(self, timeout: float) -> bool:
        """Waits until everything was handed to the socket; for tests and for a clean end."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            with self._lock:
                if not self._pending:
                    return True
            time.sleep(0.005)
        return False

    def close(self, timeout: float = 1.0) -> None:
        if self._pid != os.getpid() or self._closing:
            return  # a forked child has neither the thread nor a socket that it may touch
        self._closing = True
        self._wake()
        self._thread.join(timeout + 1)

    _subscribed = False

    def _wake(self) -> None:
        try:
            self._wake_in.send(b"\0")
        except OSError:
            pass  # full: the thread is about to wake anyway; closed: nothing to wake

    def _run(self) -> None:
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._wake_out, zmq.POLLIN)
        next_idle = time.monotonic() + self._idle_seconds
        while not self._closing:
            try:
                poller.poll(int(max(0.0, next_idle - time.monotonic()) * 1000) + 1)
                self._drain_wakes()
                self._note_subscriptions()
                sent = self._send_pending() if self._subscribed else False
                now = time.monotonic()
                if sent:
                    next_idle = now + self._idle_seconds
                elif now >= next_idle:
                    next_idle = now + self._idle_seconds
                    self._put_idle()
            except Exception as error:  # the engine outlives whatever goes wrong here
                self.warn(f"sending failed: {error}")
                time.sleep(0.1)
        self._finish()

    def _finish(self) -> None:
        try:
            if self._subscribed:
                self._send_pending()
            # Long enough for the last message; a daemon that does not read cannot hold us.
            self._socket.close(linger=200)
            self._context.term()
        finally:
            self._wake_in.close()
            self._wake_out.close()

    def _put_idle(self) -> None:
        message = self._idle()
        if message is not None:
            self.put(message)

    def _drain_wakes(self) -> None:
        try:
            while self._wake_out.recv(4096):
                pass
        except BlockingIOError:
            pass

    def _note_subscriptions(self) -> None:
        while True:
            try:
                frame = self._socket.recv(zmq.NOBLOCK)
            except zmq.Again:
                return
            # The first byte says subscribe, or that the last one who did is gone.
            self._subscribed = frame[:1] == b"\1" and self._topic.startswith(frame[1:])
            if self._subscribed and self.sent:
                self._put_idle()

    def _send_pending(self) -> bool:
        any_sent = False
        while True:
            with self._lock:
                if not self._pending:
                    return any_sent
                message = self._pending.popleft()
            frames = [self._topic, wire.pack_sequence(self.sent), message.encode()]
            self._socket.send_multipart(frames, zmq.NOBLOCK)
            self.sent += 1
            any_sent = True


class Reporting(Generic[M]):
    """What objects that report through a Sender have in common."""

    _sender: Sender[M]

    @property
    def errors(self) -> int:
        """Messages that could not be made or sent."""
        return self._sender.errors

    @property
    def dropped(self) -> int:
        """Messages that gave way to newer ones."""
        return self._sender.dropped

    @property
    def sent(self) -> int:
        return self._sender.sent

    @property
    def connected(self) -> bool:
        """Whether a daemon listens."""
        return self._sender.connected

    def flush(self, timeout: float = 1.0) -> bool:
        return self._sender.flush(timeout)

    def close(self) -> None:
        self._sender.close()

    def __enter__(self: R) -> R:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self: R) -> R:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()


def checked_source(source: str) -> str:
    if not 1 <= len(source.encode()) <= 128:
        raise ValueError("a source's name has 1 to 128 bytes of UTF-8")
    return source
