# SPDX-License-Identifier: Apache-2.0
"""Tokens counted on the device, each by the row that routed it, and fetched without waiting."""

from __future__ import annotations

from typing import Any, NamedTuple, Optional

import numpy as np
import torch

from ..placement import Array


class Fetched(NamedTuple):
    """Since the one before: counts [layers, experts], gpu_tokens [layers, gpus], and the steps.

    `table` [layers, slots] is the engine's map at that time, `mark` what fetch() was given.
    """

    counts: Array
    gpu_tokens: Array
    table: Array
    steps: int
    mark: Any


class Tally:
    """Only launches work on the device; its order there is what tells which row counted.

    `rows` are those that are fetched, where not all layers are MoE layers.
    """

    def __init__(self, table: torch.Tensor, experts: int, gpus: int) -> None:
        layers = table.shape[0]
        device = table.device
        self._gpus = gpus
        # The last column takes what an empty slot, -1, seems to get.
        self._counts = torch.zeros(layers, experts + 1, dtype=torch.int64, device=device)
        self._tokens = torch.zeros(table.shape, dtype=torch.int64, device=device)
        self._steps = 0
        self.rows: Optional[torch.Tensor] = None
        self._host: Optional[torch.Tensor] = None
        self._ready: Any = None
        self._asked: tuple[int, Any] = (0, None)

    def add(self, tokens: torch.Tensor, table: torch.Tensor) -> None:
        """One forward pass's `tokens` [layers, slots], routed by `table` [layers, slots]."""
        index = table.long().remainder(self._counts.shape[1])
        self._counts.scatter_add_(1, index, tokens.long())
        self._tokens += tokens
        self._steps += 1

    @property
    def steps(self) -> int:
        return self._steps

    @property
    def busy(self) -> bool:
        return self._host is not None

    def fetch(self, table: torch.Tensor, mark: Any = None) -> None:
        """Starts to bring what was counted, and `table`, to the host; fetched() says when it came."""
        gpu_tokens = self._tokens.reshape(self._tokens.shape[0], self._gpus, -1).sum(2)
        flat = torch.cat([self._counts[:, :-1], gpu_tokens, table.long()], dim=1)
        if self.rows is not None:
            flat = flat[self.rows]
        self._counts.zero_()
        self._tokens.zero_()
        self._asked, self._steps = (self._steps, mark), 0
        if flat.device.type == "cpu":
            self._host = flat
            return
        self._host = torch.empty(flat.shape, dtype=flat.dtype, pin_memory=True)
        self._host.copy_(flat, non_blocking=True)
        self._ready = torch.Event()
        self._ready.record()

    def fetched(self) -> Optional[Fetched]:
        if self._host is None or (self._ready is not None and not self._ready.query()):
            return None
        values = self._host.numpy()
        self._host = self._ready = None
        experts = self._counts.shape[1] - 1
        counts, gpu_tokens, table = np.split(values, [experts, experts + self._gpus], axis=1)
        steps, mark = self._asked
        return Fetched(counts, gpu_tokens, table.astype(np.int32), steps, mark)
