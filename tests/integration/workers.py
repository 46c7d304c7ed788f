# SPDX-License-Identifier: Apache-2.0
"""Workers on bare pyzmq and msgpack: how docs/wire.md reads to somebody who never saw our client.

Frozen with version 1 of the wire: later daemons must serve them as they stand here.
"""

from __future__ import annotations

import struct
import time
from typing import NamedTuple

import msgpack
import numpy as np
import zmq

CONTEXT = zmq.Context.instance()


class Keys(NamedTuple):
    """CURVE: a worker's own pair, and the daemon's public key."""

    public: bytes
    secret: bytes
    server: bytes


def new_socket(kind: int, keys: Keys | None) -> zmq.Socket:
    made = CONTEXT.socket(kind)
    made.linger = 0
    made.reconnect_ivl = 20
    made.reconnect_ivl_max = 100
    if keys:
        made.curve_publickey, made.curve_secretkey, made.curve_serverkey = keys
    return made


def sequence_frame(sequence: int) -> bytes:
    return struct.pack(">Q", sequence)


class Publisher:
    """A PUB socket of one source. counts() sends `new` tokens [layers, experts]."""

    def __init__(
        self, endpoint, deployment="test", source="dp0", kind="cumulative", *, curve=None, **keys
    ):
        self.topic = deployment.encode()
        self.kind = kind
        self.keys = {"source": source, **keys}
        self.running = (0, 0)
        self.socket = new_socket(zmq.XPUB, curve)  # PUB that tells when the daemon has subscribed
        self.socket.sndhwm = 0
        self.socket.immediate = True
        self.socket.xpub_verbose = True  # the same subscription again: the daemon is a new one
        self.socket.connect(endpoint)
        self.totals = None
        self.gpu_totals = None
        self.restart()

    def restart(self) -> None:
        """A new life of the same source: epoch larger, sequence and counters from 0."""
        self.epoch = time.time_ns()
        self.since = time.time()
        self.sequence = 0
        self.totals = self.gpu_totals = None

    def connected(self, timeout: float = 30.0) -> Publisher:
        """Waits until the daemon subscribes; after a restart, until it does so anew."""
        deadline = time.monotonic() + timeout
        subscribed = False
        while not subscribed or self.socket.poll(0):
            if not self.socket.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise AssertionError("no subscription came")
            subscribed = self.socket.recv()[:1] == b"\1"
        return self

    def message(self, new, steps=1, gpu_tokens=None, **changes) -> dict:
        new = np.asarray(new).astype("<u4")
        if self.kind == "cumulative":
            new = self.totals = new if self.totals is None else self.totals + new
        message = {
            "type": "counts",
            "v": 1,
            "epoch": self.epoch,
            "since": self.since,
            "ts": time.time(),
            "steps": steps,
            "term": self.running[0],
            "version": self.running[1],
            "kind": self.kind,
            "counts": new.tobytes(),
            **self.keys,
        }
        if gpu_tokens is not None:
            gpu_tokens = np.asarray(gpu_tokens).astype("<u4")
            if self.kind == "cumulative":
                old = self.gpu_totals
                gpu_tokens = self.gpu_totals = gpu_tokens if old is None else old + gpu_tokens
            message["gpu_tokens"] = gpu_tokens.tobytes()
        message.update(changes)
        return {key: value for key, value in message.items() if value is not ...}

    def counts(self, new, steps=1, gpu_tokens=None, **changes) -> dict:
        message = self.message(new, steps, gpu_tokens, **changes)
        self.send(message)
        return message

    def state(self, table, status="idle", experts=32, gpus=8, **changes) -> None:
        table = np.asarray(table).astype("<i4")
        message = {
            "type": "state",
            "v": 1,
            "epoch": self.epoch,
            "ts": time.time(),
            "term": self.running[0],
            "version": self.running[1],
            "status": status,
            "layers": table.shape[0],
            "logical_experts": experts,
            "slots": table.shape[1],
            "gpus": gpus,
            "physical_to_logical": table.tobytes(),
            **self.keys,
        }
        message.update(changes)
        self.send({key: value for key, value in message.items() if value is not ...})

    def send(self, message, topic=None, sequence=None) -> None:
        payload = message if isinstance(message, bytes) else msgpack.packb(message)
        if sequence is None:
            sequence = self.sequence
            self.sequence += 1
        self.socket.send_multipart([topic or self.topic, sequence_frame(sequence), payload])

    def close(self) -> None:
        self.socket.close(0)


class Follower:
    """A SUB socket that keeps what it sees. `held` is ((term, version), map)."""

    def __init__(self, endpoint, deployment="test", held=((0, 0), None), *, curve=None):
        self.topic = deployment.encode()
        self.held = held
        self.message: dict = {}
        self.seen: list[dict] = []
        self.heartbeats: list[dict] = []
        self.socket = new_socket(zmq.SUB, curve)
        self.socket.subscribe(self.topic)
        self.socket.connect(endpoint)

    def poll(self, timeout: float) -> bool:
        """Takes what comes within `timeout` seconds; whether a newer placement did (returns then)."""
        deadline = time.monotonic() + timeout
        while True:
            left = max(0.0, deadline - time.monotonic())
            if not self.socket.poll(left * 1000):
                return False
            topic, _, payload = self.socket.recv_multipart()
            message = msgpack.unpackb(payload)
            assert topic == self.topic and message["v"] == 1, (topic, message)
            identity = (message["term"], message["version"])
            if message["type"] == "heartbeat":
                self.heartbeats.append(message)
                continue
            self.seen.append(message)
            if identity > self.held[0]:
                flat = np.frombuffer(message["physical_to_logical"], "<i4")
                self.held = identity, flat.reshape(message["layers"], message["slots"])
                self.message = message
                return True

    def close(self) -> None:
        self.socket.close(0)


def initial_map(layers, logical_experts, slots, **_) -> np.ndarray:
    return np.tile(np.arange(slots, dtype=np.int32) % logical_experts, (layers, 1))


def carried_over(table, gpus, next_gpus, next_per_gpu):
    """Each GPU that stays keeps what it holds, as far as it has slots; -1 is not filled yet."""
    per_gpu = table.shape[1] // gpus
    kept_gpus, kept = min(gpus, next_gpus), min(per_gpu, next_per_gpu)
    carried = np.full((len(table), next_gpus, next_per_gpu), -1, np.int32)
    held = table.reshape(len(table), gpus, per_gpu)
    carried[:, :kept_gpus, :kept] = held[:, :kept_gpus, :kept]
    return carried.reshape(len(table), -1)


def skewed_load(seed: int, layers, logical_experts, tokens=20_000, sigma=0.6, **_) -> np.ndarray:
    """Tokens of one message [layers, experts]; every layer's sum is `tokens`."""
    rng = np.random.default_rng(seed)
    weights = np.exp(rng.normal(0, sigma, (layers, logical_experts)))
    return np.stack([rng.multinomial(tokens, row / row.sum()) for row in weights])


def imbalance(load, table, gpus) -> float:
    """Sum over layers of max / sum of mean GPU load; each replica carries its share."""
    load = np.asarray(load, float)
    worst = mean = 0.0
    for tokens, row in zip(load, table):
        replicas = np.bincount(row[row >= 0], minlength=tokens.size)
        share = np.where(row >= 0, (tokens / np.maximum(replicas, 1))[row], 0.0)
        per_gpu = share.reshape(gpus, -1).sum(1)
        worst += per_gpu.max()
        mean += per_gpu.mean()
    return worst / mean


def violations(table, experts, gpus, base=None, gpus_down=()) -> list[str]:
    """The rules of a valid placement that `table` breaks; `base` is what it updates."""
    found = []
    per_gpu = table.shape[1] // gpus
    for layer, row in enumerate(table):
        down = np.isin(np.arange(row.size) // per_gpu, gpus_down)
        if (row[down] != -1).any() or (row[~down] == -1).any():
            found.append(f"layer {layer}: exactly the slots of GPUs that are down are empty")
        if (row < -1).any() or (row >= experts).any():
            found.append(f"layer {layer}: an expert out of range")
            continue
        if (np.bincount(row[row >= 0], minlength=experts) == 0).any():
            found.append(f"layer {layer}: an expert without a slot")
        for gpu in range(gpus):
            mine = row[gpu * per_gpu : (gpu + 1) * per_gpu]
            held = mine[mine >= 0]
            if np.unique(held).size != held.size:
                found.append(f"layer {layer}: GPU {gpu} holds an expert twice")
            if base is None:
                continue
            before = base[layer, gpu * per_gpu : (gpu + 1) * per_gpu]
            for slot, expert in enumerate(before):
                if expert >= 0 and expert in held and mine[slot] != expert:
                    found.append(f"layer {layer}: expert {expert} changed its slot on GPU {gpu}")
    return found


def moves(table, base, gpus) -> set[tuple[int, int, int]]:
    """(layer, slot, expert) of slots whose GPU did not hold the expert before."""
    per_gpu = table.shape[1] // gpus
    found = set()
    for layer, slot in zip(*np.nonzero(table != base)):
        gpu = slot // per_gpu
        expert = table[layer, slot]
        if expert >= 0 and expert not in base[layer, gpu * per_gpu : (gpu + 1) * per_gpu]:
            found.add((int(layer), int(slot), int(expert)))
    return found
