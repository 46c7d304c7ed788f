# SPDX-License-Identifier: Apache-2.0
"""Tokens counted on the device, each by the row that routed it, and fetched without waiting."""

from __future__ import annotations

from typing import Any, NamedTuple, Optional

import numpy as np
import torch

from ..placement import Array


class Fetched(NamedTuple):
    """Since the one before, modulo 2^32: counts [layers, experts], gpu_tokens [layers, gpus]; the steps.

    `table` [layers, slots] is the engine's map at that time, `mark` what fetch() was given.
    """

    counts: Array
    gpu_tokens: Array
    table: Array
    steps: int
    mark: Any


class Tally:
    """Only launches work on the device; its order there is what tells which row counted.

    `rows` are those that are told, where not all layers are MoE layers.
    """

    def __init__(self, table: torch.Tensor, experts: int, gpus: int) -> None:
        (layers, slots), device = table.shape, table.device
        self._experts, self._gpus = experts, gpus
        # The experts', then what an empty slot, -1, seems to get, then the slots'.
        self._counted = torch.zeros(layers, experts + 1 + slots, dtype=torch.int32, device=device)
        self._of_experts = self._counted[:, : experts + 1]
        self._of_slots = self._counted[:, experts + 1 :]
        self._index = torch.empty(table.shape, dtype=torch.int64, device=device)
        pinned = device.type != "cpu"
        self._host = torch.empty(self._counted.shape, dtype=torch.int32, pin_memory=pinned)
        self._host_table = torch.empty(table.shape, dtype=table.dtype, pin_memory=pinned)
        self._ready: Any = torch.Event() if pinned else None
        self._asked: Optional[tuple[int, Any]] = None
        self._steps = 0
        self.rows: Any = slice(None)

    def add(self, tokens: torch.Tensor, table: torch.Tensor) -> None:
        """One forward pass's `tokens` [layers, slots], routed by `table` [layers, slots]."""
        torch.remainder(table, self._experts + 1, out=self._index)
        tokens = tokens.to(torch.int32)
        self._of_experts.scatter_add_(1, self._index, tokens)
        self._of_slots.add_(tokens)
        self._steps += 1

    @property
    def busy(self) -> bool:
        return self._asked is not None

    def fetch(self, table: torch.Tensor, mark: Any = None) -> None:
        """Starts to bring what was counted, and `table`, to the host; fetched() says when it came."""
        self._host.copy_(self._counted, non_blocking=True)
        self._host_table.copy_(table, non_blocking=True)
        self._counted.zero_()
        self._asked, self._steps = (self._steps, mark), 0
        if self._ready is not None:
            self._ready.record()

    def fetched(self) -> Optional[Fetched]:
        if self._asked is None or (self._ready is not None and not self._ready.query()):
            return None
        (steps, mark), self._asked = self._asked, None
        counted = self._host.numpy().view(np.uint32)[self.rows].astype(np.uint64)
        counts, _, tokens = np.split(counted, [self._experts, self._experts + 1], axis=1)
        gpu_tokens = tokens.reshape(tokens.shape[0], self._gpus, -1).sum(axis=2)
        table = self._host_table.numpy()[self.rows].astype(np.int32)
        return Fetched(counts, gpu_tokens, table, steps, mark)
