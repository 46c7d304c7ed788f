# SPDX-License-Identifier: Apache-2.0
"""The golden vectors of docs/wire.md, and what a client does with bytes that are not right."""

import json
import re
import unittest
from pathlib import Path

import msgpack
import numpy as np

from eplbd_client import (
    CountsPublisher,
    Placement,
    PlacementId,
    PlacementSubscriber,
    StateReporter,
    wire,
)
from fake_daemon import FakeDaemon

DOCS = Path(__file__).resolve().parents[3] / "docs" / "wire.md"
VECTOR = re.compile(r"^`([a-z-]+)`\n\n```json\n(.*?)```\n\n```hex\n(.*?)```", re.M | re.S)


def golden(name):
    """(values as the page says, bytes)"""
    for found, values, digits in VECTOR.findall(DOCS.read_text("utf-8")):
        if found == name:
            return json.loads(values), bytes.fromhex(digits)
    raise AssertionError(f"docs/wire.md has no vector {name}")


def plain(message):
    """A msgpack map with its arrays as flat lists of numbers."""
    arrays = {"counts": "<u4", "gpu_tokens": "<u4"}
    return {
        key: np.frombuffer(value, arrays.get(key, "<i4")).tolist()
        if isinstance(value, bytes)
        else value
        for key, value in message.items()
    }


def flat(values):
    return {
        key: np.ravel(value).tolist() if isinstance(value, list) else value
        for key, value in values.items()
    }


class Golden(unittest.TestCase):
    def test_page_and_bytes_agree(self):
        for name in ("counts", "counts-minimal", "state", "placement", "heartbeat"):
            with self.subTest(name):
                values, payload = golden(name)
                self.assertEqual(plain(msgpack.unpackb(payload)), flat(values))

    def test_counts_as_we_encode_them(self):
        values, payload = golden("counts")
        counts = wire.Counts(
            source=values["source"],
            epoch=values["epoch"],
            since=values["since"],
            ts=values["ts"],
            steps=values["steps"],
            running=PlacementId(values["term"], values["version"]),
            counts=np.array(values["counts"], np.uint32),
            gpu_tokens=np.array(values["gpu_tokens"], np.uint32),
        )
        self.assertEqual(msgpack.unpackb(counts.encode()), msgpack.unpackb(payload))

    def test_state_as_we_encode_it(self):
        values, payload = golden("state")
        placement = Placement(
            PlacementId(values["term"], values["version"]),
            np.array(values["physical_to_logical"]),
            values["logical_experts"],
            values["gpus"],
        )
        state = wire.State(
            source=values["source"],
            engine=values["engine"],
            epoch=values["epoch"],
            ts=values["ts"],
            placement=placement,
            status=values["status"],
            apply_seconds=values["apply_seconds"],
        )
        self.assertEqual(msgpack.unpackb(state.encode()), msgpack.unpackb(payload))

    def test_placement(self):
        values, payload = golden("placement")
        placement = wire.decode(payload)
        self.assertIsInstance(placement, Placement)
        self.assertEqual(placement.id, (values["term"], values["version"]))
        self.assertEqual(placement.base_version, values["base_version"])
        self.assertEqual(placement.ts, values["ts"])
        self.assertEqual(placement.reason, values["reason"])
        self.assertEqual(placement.gpus, values["gpus"])
        self.assertEqual(placement.logical_experts, values["logical_experts"])
        self.assertEqual(placement.imbalance_before, values["imbalance_before"])
        self.assertEqual(placement.imbalance_after, values["imbalance_after"])
        for key in ("physical_to_logical", "changed_layers", "moves", "gpus_down"):
            self.assertEqual(getattr(placement, key).tolist(), values[key], key)

    def test_heartbeat(self):
        values, payload = golden("heartbeat")
        heartbeat = wire.decode(payload)
        self.assertEqual(heartbeat.id, (values["term"], values["version"]))
        self.assertEqual((heartbeat.ts, heartbeat.mode), (values["ts"], values["mode"]))

    def test_sequence(self):
        self.assertEqual(wire.pack_sequence(258), bytes([0, 0, 0, 0, 0, 0, 1, 2]))
        self.assertEqual(wire.unpack_sequence(wire.pack_sequence(2**64 - 1)), 2**64 - 1)


class FirstRelease(unittest.TestCase):
    """A daemon that sends the golden vectors' bytes, and reads no key that is not in them."""

    def setUp(self):
        self.daemon = FakeDaemon()
        self.addCleanup(self.daemon.close)
        self.running = Placement.initial(2, 4, 6, 2)

    def test_its_messages_are_taken(self):
        values, placement = golden("placement")
        heard = []
        subscriber = PlacementSubscriber(
            "d", [self.daemon.placements_endpoint], self.running, heard=heard.append
        )
        self.addCleanup(subscriber.close)
        self.daemon.subscription()
        self.daemon.send(golden("heartbeat")[1])
        self.daemon.send(placement)
        taken = subscriber.poll(5)
        self.assertEqual(taken.id, (values["term"], values["version"]))
        self.assertEqual(taken.physical_to_logical.tolist(), values["physical_to_logical"])
        self.assertEqual(heard, [taken.id])

    def test_it_finds_what_it_needs_in_ours(self):
        endpoints = [self.daemon.counts_endpoint]
        publisher = CountsPublisher("d", endpoints, "dp3", layers=2, logical_experts=4, gpus=2)
        reporter = StateReporter("d", endpoints, "dp0", self.running, engine="decode-7")
        for sender in (publisher, reporter):
            self.addCleanup(sender.close)
        publisher.publish(np.ones((2, 4), int), gpu_tokens=np.ones((2, 2), int))
        reporter.report(self.running, "applied", apply_seconds=1.5)
        found = {}
        while len(found) < 2:
            _, message = self.daemon.receive()
            if message.get("status") != "idle":
                found[message["type"]] = message
        for name, message in found.items():
            known = msgpack.unpackb(golden(name)[1])
            for key, value in known.items():
                self.assertIs(type(message.get(key)), type(value), f"{name}: {key}")
                if isinstance(value, bytes):
                    self.assertEqual(len(message[key]), len(value), f"{name}: {key}")


class Damaged(unittest.TestCase):
    def setUp(self):
        self.message = msgpack.unpackb(golden("placement")[1])

    def refuses(self, **changes):
        message = {**self.message, **changes}
        with self.assertRaises(wire.WireError, msg=str(changes)):
            wire.decode(msgpack.packb({k: v for k, v in message.items() if v is not ...}))

    def test_every_required_key(self):
        for key in self.message:
            if key not in ("base_term",):
                self.refuses(**{key: ...})

    def test_values(self):
        self.refuses(physical_to_logical=b"\0" * 44)
        self.refuses(physical_to_logical=b"\4\0\0\0" + b"\0" * 44)
        self.refuses(physical_to_logical=b"\xfe\xff\xff\xff" + b"\0" * 44)
        self.refuses(physical_to_logical=[0] * 12)
        self.refuses(moves=b"\0" * 12)
        for row in ((2, 0, 0, 0), (0, 6, 0, 0), (0, 0, 4, 0), (0, 0, 0, 6), (0, 0, 0, -2), (-1, 0, 0, 0)):
            self.refuses(moves=np.array(row, "<i4").tobytes())
        for layers in ([2], [-1], [0, 0]):
            self.refuses(changed_layers=np.array(layers, "<i4").tobytes())
        self.refuses(gpus_down=np.array([2], "<i4").tobytes())
        self.refuses(version=1 << 63)
        self.refuses(gpus=4)
        self.refuses(gpus=0)
        self.refuses(layers=0, physical_to_logical=b"")
        self.refuses(v=2)
        self.refuses(term=-1)
        self.refuses(term=True)

    def test_bytes(self):
        good = msgpack.packb(self.message)
        for payload in (b"", b"\xc1", good[:-1], good + b"\0", b"\x93\1\2\3", b"\x81\x91\1\2"):
            with self.assertRaises(wire.WireError, msg=payload[:8].hex()):
                wire.decode(payload)

    def test_what_is_newer_is_left_alone(self):
        self.message.update(colour="green", nested={"a": [1, {"b": 2}]})
        self.assertIsInstance(wire.decode(msgpack.packb(self.message)), Placement)
        self.assertIsNone(wire.decode(msgpack.packb({"type": "weather", "v": 1})))


if __name__ == "__main__":
    unittest.main()
