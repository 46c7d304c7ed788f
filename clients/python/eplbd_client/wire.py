# SPDX-License-Identifier: Apache-2.0
"""Messages as bytes: what docs/wire.md says, and nothing else. No socket, no clock."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, NamedTuple, Optional, Union

import msgpack
import numpy as np

from .placement import Array, Placement, PlacementId

WIRE_VERSION = 1
MAX_MESSAGE_BYTES = 4 << 20
STATUSES = ("idle", "applying", "applied", "failed", "refused")


class WireError(ValueError):
    """A message that is not what docs/wire.md says."""


class Heartbeat(NamedTuple):
    id: PlacementId
    ts: float
    mode: str


def topic_of(deployment: str) -> bytes:
    topic = deployment.encode()
    if not 1 <= len(topic) <= 128:
        raise ValueError("a deployment's name has 1 to 128 bytes of UTF-8")
    return topic


def pack_sequence(sequence: int) -> bytes:
    return struct.pack(">Q", sequence)


def unpack_sequence(frame: bytes) -> int:
    if len(frame) != 8:
        raise WireError("a sequence has 8 bytes")
    return int(struct.unpack(">Q", frame)[0])


def _little_endian(array: Array, dtype: str) -> bytes:
    return np.ascontiguousarray(array, dtype=dtype).tobytes()


def _pack(message: dict[str, Any]) -> bytes:
    return msgpack.packb(message, use_bin_type=True)  # type: ignore[no-any-return]


@dataclass
class Counts:
    """Type "counts". `counts` is [layers, logical_experts], `gpu_tokens` [layers, gpus]."""

    source: str
    epoch: int
    since: float
    ts: float
    steps: int
    running: PlacementId
    counts: Array
    gpu_tokens: Optional[Array] = None
    cumulative: bool = True
    global_scope: bool = False
    engine: str = ""

    def encode(self) -> bytes:
        message: dict[str, Any] = {
            "type": "counts",
            "v": WIRE_VERSION,
            "source": self.source,
            "epoch": self.epoch,
            "since": float(self.since),
            "ts": float(self.ts),
            "steps": self.steps,
            "term": self.running.term,
            "version": self.running.version,
            "kind": "cumulative" if self.cumulative else "delta",
            "counts": _little_endian(self.counts, "<u4"),
        }
        if self.engine:
            message["engine"] = self.engine
        if self.global_scope:
            message["scope"] = "global"
        if self.gpu_tokens is not None:
            message["gpu_tokens"] = _little_endian(self.gpu_tokens, "<u4")
        return _pack(message)


@dataclass
class State:
    """Type "state": the placement that the group runs and how its last update went."""

    source: str
    epoch: int
    ts: float
    placement: Placement
    status: str = "idle"
    layers_done: Optional[int] = None
    apply_seconds: Optional[float] = None
    error: Optional[str] = None
    features: tuple[str, ...] = ()
    engine: str = ""

    def encode(self) -> bytes:
        if self.status not in STATUSES:
            raise ValueError(f"status {self.status!r} is none of {', '.join(STATUSES)}")
        placement = self.placement
        message: dict[str, Any] = {
            "type": "state",
            "v": WIRE_VERSION,
            "source": self.source,
            "epoch": self.epoch,
            "ts": float(self.ts),
            "term": placement.id.term,
            "version": placement.id.version,
            "status": self.status,
            "layers": placement.layers,
            "logical_experts": placement.logical_experts,
            "slots": placement.slots,
            "gpus": placement.gpus,
            "physical_to_logical": _little_endian(placement.physical_to_logical, "<i4"),
        }
        optional = {
            "engine": self.engine or None,
            "layers_done": self.layers_done,
            "apply_seconds": self.apply_seconds,
            "error": self.error,
            "features": list(self.features) or None,
        }
        message.update({key: value for key, value in optional.items() if value is not None})
        return _pack(message)


def _take(message: dict[Any, Any], key: str, *types: type) -> Any:
    value = message.get(key)
    if not isinstance(value, types) or isinstance(value, bool):
        raise WireError(f"{key}: missing or of the wrong type")
    return value


def _take_uint(message: dict[Any, Any], key: str) -> int:
    value = _take(message, key, int)
    if not 0 <= value < 1 << 63:
        raise WireError(f"{key}: out of range")
    return int(value)


def _take_id(message: dict[Any, Any]) -> PlacementId:
    return PlacementId(_take_uint(message, "term"), _take_uint(message, "version"))


def _take_array(message: dict[Any, Any], key: str, columns: int = 1) -> Array:
    value = _take(message, key, bytes)
    if len(value) % (4 * columns):
        raise WireError(f"{key}: {len(value)} bytes are no whole number of rows")
    return np.frombuffer(value, dtype="<i4").astype(np.int32)


def _take_numbers(message: dict[Any, Any], key: str, end: int) -> Array:
    """Layers or GPUs: from 0 to before `end`, each at most once."""
    numbers = _take_array(message, key)
    if numbers.size and (numbers.min() < 0 or numbers.max() >= end or np.unique(numbers).size < numbers.size):
        raise WireError(f"{key}: out of range, or one twice")
    return numbers


def _decode_placement(message: dict[Any, Any]) -> Placement:
    layers, logical_experts, slots, gpus = (
        _take_uint(message, key) for key in ("layers", "logical_experts", "slots", "gpus")
    )
    flat = _take_array(message, "physical_to_logical")
    if flat.size != layers * slots or not layers or not slots:
        raise WireError(f"physical_to_logical: {flat.size} numbers are not {layers} x {slots}")
    if flat.min() < -1 or flat.max() >= logical_experts:
        raise WireError("physical_to_logical: an expert out of range")
    if not gpus or slots % gpus:
        raise WireError(f"gpus: {slots} slots do not spread over {gpus}")
    moves = _take_array(message, "moves", columns=4).reshape(-1, 4)
    if (moves < (0, 0, 0, -1)).any() or (moves >= (layers, slots, logical_experts, slots)).any():
        raise WireError("moves: a layer, slot or expert out of range")
    return Placement(
        id=_take_id(message),
        physical_to_logical=flat.reshape(layers, slots),
        logical_experts=logical_experts,
        gpus=gpus,
        base_version=_take_uint(message, "base_version"),
        ts=float(_take(message, "ts", float, int)),
        changed_layers=_take_numbers(message, "changed_layers", layers),
        moves=moves,
        gpus_down=_take_numbers(message, "gpus_down", gpus),
        imbalance_before=float(_take(message, "imbalance_before", float, int)),
        imbalance_after=float(_take(message, "imbalance_after", float, int)),
        reason=_take(message, "reason", str),
    )


def decode(payload: bytes) -> Union[Placement, Heartbeat, None]:
    """What a daemon sent; None for a type that this client does not know. Raises WireError."""
    try:
        message = msgpack.unpackb(payload, raw=False)
    except Exception as error:  # msgpack raises a dozen types, UnicodeDecodeError among them
        raise WireError(f"no msgpack: {error}") from error
    if not isinstance(message, dict):
        raise WireError("no map")
    if _take_uint(message, "v") != WIRE_VERSION:
        raise WireError(f"v: {message['v']}; this client reads {WIRE_VERSION}")
    kind = _take(message, "type", str)
    if kind == "placement":
        return _decode_placement(message)
    if kind == "heartbeat":
        return Heartbeat(
            _take_id(message),
            float(_take(message, "ts", float, int)),
            str(message.get("mode", "")),
        )
    return None
