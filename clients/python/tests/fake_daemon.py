# SPDX-License-Identifier: Apache-2.0
"""The daemon's two sockets, driven by a test: what a client meets when all is under control.

Frozen with version 1 of the wire: later clients must do with a daemon that says no more than this.
"""

import struct
import time

import msgpack
import numpy as np
import zmq


class FakeDaemon:
    def __init__(self, deployment="d", curve=None):
        self.topic = deployment.encode()
        self.context = zmq.Context()
        self.curve = curve  # (public, secret) of the server
        self.counts_endpoint = self.placements_endpoint = "tcp://127.0.0.1:*"
        self.sequence = 0
        self.start()

    def start(self):
        self.counts = self._bound(zmq.SUB, "counts_endpoint")
        self.counts.subscribe(self.topic)
        self.placements = self._bound(zmq.XPUB, "placements_endpoint")
        self.placements.xpub_verbose = True

    def _bound(self, kind, name):
        socket = self.context.socket(kind)
        socket.linger = 0
        if self.curve:
            socket.curve_server = True
            socket.curve_publickey, socket.curve_secretkey = self.curve
        deadline = time.monotonic() + 30
        while True:
            try:
                socket.bind(getattr(self, name))
                break
            except zmq.ZMQError:  # the port of a socket that has just been closed
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
        setattr(self, name, socket.last_endpoint.decode())
        return socket

    def stop(self):
        self.counts.close(0)
        self.placements.close(0)

    def close(self):
        self.stop()
        self.context.term()

    # ---- counts and state ----

    def receive(self, timeout=5.0):
        """(sequence, message) of the next one."""
        if not self.counts.poll(timeout * 1000):
            raise AssertionError(f"nothing came within {timeout} s")
        topic, sequence, payload = self.counts.recv_multipart()
        assert topic == self.topic
        return struct.unpack(">Q", sequence)[0], msgpack.unpackb(payload)

    def silent(self, seconds):
        return not self.counts.poll(seconds * 1000)

    # ---- placements ----

    def subscription(self, timeout=5.0):
        if not self.placements.poll(timeout * 1000):
            raise AssertionError("no subscription came")
        return self.placements.recv()

    def send(self, message, topic=None):
        payload = message if isinstance(message, bytes) else msgpack.packb(message)
        frames = [topic or self.topic, struct.pack(">Q", self.sequence), payload]
        self.sequence += 1
        self.placements.send_multipart(frames)

    def heartbeat(self, term, version, mode="active"):
        self.send({"type": "heartbeat", "v": 1, "term": term, "version": version,
                   "ts": time.time(), "mode": mode})

    def placement(self, term, version, table, experts=4, gpus=2, **changes):
        table = np.asarray(table, "<i4")
        self.send({
            "type": "placement", "v": 1, "term": term, "version": version, "base_version": 0,
            "ts": time.time(), "layers": table.shape[0], "logical_experts": experts,
            "slots": table.shape[1], "gpus": gpus, "physical_to_logical": table.tobytes(),
            "changed_layers": b"", "moves": b"", "gpus_down": b"", "imbalance_before": 1.5,
            "imbalance_after": 1.1, "reason": "threshold", **changes})
