# SPDX-License-Identifier: Apache-2.0
"""Whatever a worker sends is dropped whole and counted by reason; nobody else is affected."""

import os
import socket
import struct
import time
import unittest

import msgpack
import numpy as np
import zmq

from harness import SHAPE, DaemonTest, eventually
from workers import Publisher, initial_map, skewed_load

LOAD = skewed_load(1, **SHAPE)


def nested(depth):
    value = 1
    for _ in range(depth):
        value = [value]
    return value


class BadInput(DaemonTest):
    def setUp(self):
        self.subject = self.daemon(mode="observe")
        self.good = Publisher(self.subject.counts, source="good", kind="delta").connected()
        self.bad = Publisher(self.subject.counts, source="bad", kind="delta").connected()
        self.addCleanup(self.good.close)
        self.addCleanup(self.bad.close)
        self.accepted = 0

    def rejected(self):
        return self.subject.metrics().by_label("counts_rejected_total", "reason")

    def expect(self, reason, send, times=1):
        """`send` makes the count of this reason, and of no other, go up by `times`."""
        before = self.rejected()
        send()
        wanted = {**before, reason: before.get(reason, 0) + times}
        try:
            eventually(lambda: self.rejected() == wanted, reason)
        except AssertionError:
            raise AssertionError(f"expected {reason}: {before} became {self.rejected()}") from None
        self.good_still_counts()

    def good_still_counts(self):
        name = "counts_tokens_total"
        before = self.subject.metrics()(name)
        self.good.counts(LOAD)
        eventually(lambda: self.subject.metrics()(name) == before + LOAD.sum(), "good counts")

    def test_frames(self):
        def raw(*frames):
            return lambda: self.bad.socket.send_multipart(frames)

        payload = msgpack.packb(self.bad.message(LOAD))
        sequence = b"\0" * 8
        self.expect("wrong_frames", raw(b"test"))
        self.expect("wrong_frames", raw(b"test", sequence))
        self.expect("wrong_frames", raw(b"test", sequence, payload, b""))
        self.expect("wrong_frames", raw(b"test", *[b"x" * 1000] * 50))
        self.expect("wrong_frames", raw(b"test", b"\0" * 7, payload))
        self.expect("wrong_frames", raw(b"test", b"", payload))
        self.expect("wrong_topic", raw(b"tester", sequence, payload))
        self.expect("wrong_topic", raw(b"test\0", sequence, payload))

    def test_not_msgpack(self):
        good = msgpack.packb(self.bad.message(LOAD))
        for payload in (
            b"",
            b"\xc1",
            good[:-1],
            good + b"\0",
            b"\x93\1\2\3",
            msgpack.packb([1, 2, 3]),
            msgpack.packb("counts"),
            msgpack.packb({1: 2}),
            b"\xdf\xff\xff\xff\xff",
            b"\x81\xc6\xff\xff\xff\xff",
            b"\x81\xa1a" + b"\x91" * 100_000,
            msgpack.packb({"type": "counts", "v": 1, "deep": nested(100)}),
            msgpack.packb({**self.bad.message(LOAD), "deep": nested(5)}),
            msgpack.packb({**self.bad.message(LOAD), **{f"k{i}": i for i in range(60)}}),
        ):
            with self.subTest(payload[:16].hex()):
                self.expect("malformed", lambda p=payload: self.bad.send(p, sequence=0))

    def test_random_bytes(self):
        rng = np.random.default_rng(7)
        before = sum(self.rejected().values())
        for _ in range(500):
            self.bad.send(rng.bytes(int(rng.integers(1, 300))), sequence=0)
        eventually(lambda: sum(self.rejected().values()) == before + 500, "500 rejected")
        self.good_still_counts()

    def test_extra_keys_are_ignored(self):
        self.bad.counts(LOAD, colour="green", more={"a": [1, 2]}, **{f"k{i}": i for i in range(45)})
        self.bad.counts(LOAD, engine=None, scope=None)
        eventually(lambda: self.subject.metrics()("counts_tokens_total") == 2 * LOAD.sum(), "counted")
        self.assertEqual(self.rejected(), {})

    def test_limits_of_keys_and_levels_to_the_one(self):
        keys = {f"k{i}": i for i in range(64 - len(self.bad.message(LOAD)))}
        self.bad.counts(LOAD, **keys)
        self.bad.counts(LOAD, deep=nested(3))  # the message itself is the first level
        eventually(lambda: self.subject.metrics()("counts_tokens_total") == 2 * LOAD.sum(), "counted")
        self.assertEqual(self.rejected(), {})
        self.expect("malformed", lambda: self.bad.counts(LOAD, **keys, one_more=1))
        self.expect("malformed", lambda: self.bad.counts(LOAD, deep=nested(4)))

    def test_numbers_however_msgpack_writes_them(self):
        """Unsigned and signed integers of every width, floats of both, whole times as integers."""
        small = {b"\xcc": ">B", b"\xcd": ">H", b"\xce": ">I", b"\xcf": ">Q",
                 b"\xd0": ">b", b"\xd1": ">h", b"\xd2": ">i", b"\xd3": ">q"}
        wide = {b"\xce": ">I", b"\xcf": ">Q", b"\xd3": ">q", b"\xca": ">f", b"\xcb": ">d"}
        cases = [("steps", 100, prefix, form) for prefix, form in small.items()]
        cases += [("ts", 1_700_000_000, prefix, form) for prefix, form in wide.items()]
        for i, (key, value, prefix, form) in enumerate(cases):
            with self.subTest(f"{key} as {prefix.hex()}"):
                message = self.bad.message(LOAD, source=f"s{i}", since=1_600_000_000.0)
                fields = {k: msgpack.packb(v) for k, v in message.items()}
                fields[key] = prefix + struct.pack(form, value)
                pairs = b"".join(msgpack.packb(k) + v for k, v in fields.items())
                self.bad.send(bytes([0x80 + len(fields)]) + pairs, sequence=0)
                tokens = (i + 1) * LOAD.sum()
                eventually(lambda: self.subject.metrics()("counts_tokens_total") == tokens,
                           f"counted; rejected {self.rejected()}", 3)

    def test_keys_and_types(self):
        for key in ("source", "epoch", "since", "ts", "steps", "term", "version", "counts"):
            with self.subTest(f"without {key}"):
                self.expect("missing_key", lambda k=key: self.bad.counts(LOAD, **{k: ...}))
        for key, value in (
            ("source", 7),
            ("epoch", "1"),
            ("epoch", -1),
            ("epoch", 1.5),
            ("ts", "now"),
            ("steps", -1),
            ("counts", LOAD.ravel().tolist()),
            ("counts", "text"),
            ("kind", 1),
            ("scope", []),
            ("engine", 5),
        ):
            with self.subTest(f"{key}={str(value)[:10]}"):
                self.expect("wrong_type", lambda: self.bad.counts(LOAD, **{key: value}))

        self.expect("wrong_type", lambda: self.bad.send({**self.bad.message(LOAD), "gpu_tokens": 3}))

    def test_type_and_version(self):
        self.expect("unknown_type", lambda: self.bad.counts(LOAD, type="weather"))
        self.expect("unknown_type", lambda: self.bad.counts(LOAD, type="placement"))
        self.expect("wrong_version", lambda: self.bad.counts(LOAD, v=2))
        self.expect("wrong_version", lambda: self.bad.counts(LOAD, v=999))
        self.expect("wrong_type", lambda: self.bad.counts(LOAD, v="1"))

    def test_shapes(self):
        for size in (0, 1, LOAD.size * 4 - 1, LOAD.size * 4 - 4, LOAD.size * 4 + 4, 1 << 20):
            with self.subTest(f"counts of {size} bytes"):
                self.expect("wrong_shape", lambda s=size: self.bad.counts(LOAD, counts=b"\0" * s))
        self.expect(
            "wrong_shape",
            lambda: self.bad.send({**self.bad.message(LOAD), "gpu_tokens": b"\0" * 4}),
        )
        table = initial_map(**SHAPE)
        self.expect("wrong_shape", lambda: self.bad.state(table, physical_to_logical=b"\0" * 8))

    def test_values(self):
        self.expect("bad_value", lambda: self.bad.counts(LOAD, source=""))
        self.expect("bad_value", lambda: self.bad.counts(LOAD, source="x" * 129))
        self.expect("bad_value", lambda: self.bad.counts(LOAD, source="a\nb"))
        self.expect("bad_value", lambda: self.bad.counts(LOAD, kind="sum"))
        self.expect("bad_value", lambda: self.bad.counts(LOAD, scope="world"))
        table = initial_map(**SHAPE)
        self.expect("bad_value", lambda: self.bad.state(table, status="happy"))

    def test_time(self):
        for value in (float("nan"), float("inf"), float("-inf")):
            self.expect("bad_timestamp", lambda v=value: self.bad.counts(LOAD, ts=v))
            self.expect("bad_timestamp", lambda v=value: self.bad.counts(LOAD, since=v))
        now = time.time()
        self.bad.counts(LOAD, ts=now)
        self.expect("bad_timestamp", lambda: self.bad.counts(LOAD, ts=now))
        self.expect("bad_timestamp", lambda: self.bad.counts(LOAD, ts=now - 1))
        self.expect(
            "bad_timestamp",
            lambda: self.bad.state(initial_map(**SHAPE), term=int(now) + 10 * 86_400),
        )

    def test_engines(self):
        self.good_still_counts()
        self.expect("wrong_engine", lambda: self.bad.counts(LOAD, engine="other"))
        self.expect("wrong_engine", lambda: self.bad.state(initial_map(**SHAPE), engine="other"))

    def test_oversize_frame_ends_the_connection_and_is_counted(self):
        self.bad.socket.send_multipart([b"test", b"\0" * 8, bytes((4 << 20) + 1)])
        ended = "counts_connections_ended_total"
        eventually(lambda: self.subject.metrics()(ended) == 1, "counted from the monitor")
        self.good_still_counts()
        # The peer may come back and behave.
        self.bad.connected()
        tokens = self.subject.metrics()("counts_tokens_total")
        self.bad.counts(LOAD)
        eventually(
            lambda: self.subject.metrics()("counts_tokens_total") == tokens + LOAD.sum(), "counted"
        )

    def test_frame_of_just_four_mebibytes_is_judged(self):
        self.expect(
            "malformed", lambda: self.bad.socket.send_multipart([b"test", b"\0" * 8, b"\xc1" * (4 << 20)])
        )

    def test_not_zeromq_at_all(self):
        host, port = self.subject.counts.removeprefix("tcp://").rsplit(":", 1)
        for data in (b"GET / HTTP/1.1\r\n\r\n", os.urandom(4096), b"", b"\xff" + b"\0" * 63):
            for address in (self.subject.counts, self.subject.placements):
                host, port = address.removeprefix("tcp://").rsplit(":", 1)
                with socket.create_connection((host, int(port))) as peer:
                    peer.sendall(data)
        self.good_still_counts()

    def test_subscribers_that_misbehave(self):
        context = zmq.Context.instance()
        for frames in ([b"\1" + b"x" * 100_000], [b"\1test", b"more"], [b"junk"], [b"\0never"], [b""]):
            peer = context.socket(zmq.XSUB)
            peer.linger = 200
            peer.connect(self.subject.placements)
            peer.send_multipart(frames)
            peer.close()
        self.good_still_counts()
        self.assertEqual(self.subject.get_json("/api/v1/status")["deployment"], "test")

    def test_flood_of_garbage_leaves_memory_bounded(self):
        """Random bytes, depth bombs, 50 frames, oversize frames; a good worker counts all the while."""
        self.good_still_counts()
        _, before = self.subject.usage()
        payloads = [os.urandom(2000), b"\x91" * 50_000, b"\x81\xa1a" + b"\xdc\xff\xff" * 1000]
        delays = []
        for i in range(100_000):
            payload = payloads[i % 100] if i % 100 < 3 else payloads[0]
            self.bad.send(payload, sequence=0)
            if i % 1000 == 999:
                self.bad.socket.send_multipart([b"test", *[b"y" * 900] * 49])
            if i % 5000 == 4999:
                self.oversize()
                started = time.monotonic()
                self.good_still_counts()
                delays.append(time.monotonic() - started)
        total = 100_000 + 100
        eventually(lambda: sum(self.rejected().values()) == total, f"{total} rejected", 60)
        self.good_still_counts()
        _, after = self.subject.usage()
        ended = self.subject.metrics()("counts_connections_ended_total")
        print(f"\n100,000 pieces of garbage, {ended:.0f} connections ended: peak RSS {before:.1f} -> "
              f"{after:.1f} MiB; a good message counted within {1e3 * np.median(delays):.0f} ms "
              f"(median), {1e3 * max(delays):.0f} ms at most")
        self.assertGreaterEqual(ended, 20)
        self.assertLess(after, before + 80)
        log_lines = self.subject.log().count("\n")
        self.assertLess(log_lines, 500, "the log is limited in rate")

    def oversize(self):
        peer = Publisher(self.subject.counts, source="large").connected()
        self.addCleanup(peer.close)
        peer.socket.send_multipart([b"test", b"\0" * 8, bytes((4 << 20) + 1)])


if __name__ == "__main__":
    unittest.main()
