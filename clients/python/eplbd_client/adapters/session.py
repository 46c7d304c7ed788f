# SPDX-License-Identifier: Apache-2.0
"""One rank of an engine and the daemon: who balances now, which update is under way, what runs."""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Optional

import numpy as np
import torch

from ..placement import Array, Placement
from ..publisher import CountsPublisher
from . import Settings, source_name
from .channel import Agreed, Channel, Desk, Say, agree_on_start
from .tally import Fetched, Tally

_REPORT_SECONDS = 1.0
_PROGRESS_SECONDS = 0.2


class Update:
    """A placement that this engine is moving to."""

    def __init__(self, placement: Placement, base: Placement) -> None:
        self.placement = placement
        self.layers = placement.layers_changed_from(base)
        self.started = self.progressed = time.monotonic()
        self.error = ""

    def layers_done(self, table: Array) -> int:
        rows = table[self.layers] == self.placement.physical_to_logical[self.layers]
        return int(rows.all(axis=1).sum())


class Session:
    """The same calls in the same steps on every rank; rank 0 speaks with the daemon.

    `title` names the engine in the log, `why_not` is why it may never act here ("": it may), `refuse`
    says why it cannot run a placement, `counts` whether this rank's counts are told.
    """

    def __init__(
        self,
        settings: Settings,
        title: str,
        running: Placement,
        group: Any,
        *,
        why_not: str,
        refuse: Callable[[Placement], str],
        counts: bool,
    ) -> None:
        self._settings = settings
        self.title = title
        self._why_not = why_not
        self.running = running
        self.follows = False  # the daemon balances, not the engine
        self.gives_up = False  # all ranks found the update in progress stuck
        self.unable = False  # this rank cannot act any more
        self.update: Optional[Update] = None
        self._next: Optional[Placement] = None
        self._offered = False
        self._concluding: Optional[Update] = None
        self._parts: list[Callable[[], Any]] = []  # what is to be told, each in a step
        self._agreeing = False  # this step took or began a round
        self._idle_reason: Optional[str] = None
        self._fetched_at = time.monotonic()
        self._channel = Channel(group, running)
        self.desk: Optional[Desk] = None
        self.publisher: Optional[CountsPublisher] = None
        self._open(group, refuse, counts)

    def _open(self, group: Any, refuse: Callable[[Placement], str], counts: bool) -> None:
        """Collective: where one rank has no link to the daemon, none acts and none waits for it."""
        error, running, settings = "", self.running, self._settings
        try:
            if counts:
                self.publisher = CountsPublisher(
                    settings.deployment,
                    settings.counts,
                    source_name(group.rank()),
                    layers=running.layers,
                    logical_experts=running.logical_experts,
                    gpus=running.gpus,
                    engine=settings.engine,
                    curve=settings.curve(group.rank()),
                )
            if group.rank() == 0:
                self.desk = Desk(settings, running, refuse)
        except Exception as problem:
            error = str(problem) or type(problem).__name__
        try:
            agree_on_start(group, error)
        except RuntimeError:
            self.close()
            raise

    # ---- each step, on every rank ----

    def step(self) -> None:
        """Waits for another rank only where one is a round behind."""
        self.gives_up = False
        agreed = self._channel.step(self._say, self.unable)
        self._agreeing = self._channel.acted
        if agreed is not None:
            self._take(agreed)

    def begin(self) -> Optional[Update]:
        """The update that all ranks begin in this step; None: no new one."""
        if self._next is None or self.update is not None or self._agreeing:
            return None
        self.update, self._next = Update(self._next, self.running), None
        return self.update

    def progress(self) -> None:
        if self.update is not None:
            self.update.progressed = time.monotonic()

    def over(self, error: str = "") -> None:
        """The engine has done what it would; the next report() says what runs."""
        assert self.update is not None
        self.update.error = error
        if self.desk is not None:
            self._concluding = self.update
        self.update = None

    def _take(self, agreed: Agreed) -> None:
        self.follows = agreed.follows and not agreed.unable
        if self.desk is None and agreed.running != self.running.id:
            self.running = dataclasses.replace(self.running, id=agreed.running)
        if agreed.placement is not None:
            self._next, self._offered = agreed.placement, False
        self.gives_up = agreed.gives_up and self.update is not None
        if agreed.unable and not self._why_not:
            self._why_not = f"{agreed.unable} ranks cannot apply any more: restart the engine"

    # ---- rank 0 ----

    def _say(self) -> Say:
        if self.desk is None:
            return Say()
        reason = self._why_not or self.desk.why_idle()
        self._note(reason)
        free = not (self._offered or self._next or self.update or self._concluding)
        placement = self.desk.take(self.running) if free and not reason else None
        if placement is not None:
            self._offered = True
            self.desk.reporter.report(self.running, "applying", layers_done=0)
        stuck = self._settings.stuck_seconds
        stands = self.update is not None and time.monotonic() - self.update.progressed > stuck
        return Say(not reason, stands, self.running.id, placement)

    def _note(self, reason: str) -> None:
        if self.desk is None or reason == self._idle_reason:
            return
        self._idle_reason = reason
        now = self.running
        self._log(
            logging.INFO,
            f"observing only, the engine balances by itself: {reason}"
            if reason
            else f"follows {self._settings.deployment}: {now.layers} layers, {now.logical_experts} "
            f"experts in {now.slots} slots on {now.gpus} GPUs",
        )
        if self.update is None and self._concluding is None:
            self.desk.reporter.report(now, "idle", error=reason or None)

    # ---- what is told ----

    def report(self, tally: Tally, table: Callable[[], torch.Tensor]) -> None:
        """Once a step: counts and the map [layers, slots] go out about once a second.

        A step does one part of it, and none where the ranks agree: what holds a step is short.
        """
        if self._agreeing or (self.publisher is None and self.desk is None):
            return
        if self._parts:
            self._parts.pop(0)()
        elif tally.busy:
            self._take_fetched(tally.fetched())
        else:
            now = time.monotonic()
            wait = _PROGRESS_SECONDS if self.update else _REPORT_SECONDS
            if self._concluding is not None or now - self._fetched_at >= wait:
                self._fetched_at = now
                tally.fetch(table(), self._concluding)

    def _take_fetched(self, fetched: Optional[Fetched]) -> None:
        if fetched is None:
            return
        if self.publisher is not None and fetched.steps:
            self._parts.append(partial(self._publish, self.publisher, fetched))
        if self.desk is not None:
            self._parts.append(partial(self._told, fetched.table, fetched.mark))

    def _publish(self, publisher: CountsPublisher, fetched: Fetched) -> None:
        publisher.publish(
            fetched.counts,
            steps=fetched.steps,
            running=self.running.id,
            gpu_tokens=fetched.gpu_tokens,
        )

    def _told(self, table: Array, mark: Any) -> None:
        """`table` is what this engine ran when it was asked for, with `mark` to be concluded."""
        if self.desk is None:
            return
        if mark is not None and mark is self._concluding:
            self._concluding = None
            self._conclude(mark, table)
        elif self.update is not None:
            shown = dataclasses.replace(self.running, physical_to_logical=table)
            done = self.update.layers_done(table)
            self.desk.reporter.report(shown, "applying", layers_done=done)
        elif self._concluding is None and not self._same(table):
            self.running = dataclasses.replace(self.running, physical_to_logical=table)
            self.desk.reporter.report(self.running, "idle", error=self._idle_reason or None)

    def _conclude(self, update: Update, table: Array) -> None:
        assert self.desk is not None
        placement, seconds = update.placement, time.monotonic() - update.started
        name = f"{placement.id.term}.{placement.id.version}"
        if np.array_equal(table, placement.physical_to_logical):
            self.running = placement
            self.desk.reporter.report(placement, "applied", apply_seconds=seconds)
            self._log(
                logging.INFO,
                f"placement {name} applied in {seconds:.2f} s, {update.layers.size} layers changed",
            )
            return
        error = update.error or "the engine kept a map of its own"
        self.running = dataclasses.replace(self.running, physical_to_logical=table)
        self.desk.decline(self.running)
        self.desk.reporter.report(self.running, "failed", error=error)
        self._log(logging.WARNING, f"placement {name} failed: {error}")

    def _log(self, level: int, line: str) -> None:
        assert self.desk is not None
        self.desk.log(level, f"{self.title}: {line}")

    def _same(self, table: Array) -> bool:
        return np.array_equal(table, self.running.physical_to_logical)

    def close(self) -> None:
        """In a thread: a socket's end may take a second, and no step waits for it."""
        parts = [part for part in (self.desk, self.publisher) if part is not None]
        threading.Thread(target=lambda: [part.close() for part in parts], daemon=True).start()
