# SPDX-License-Identifier: Apache-2.0
"""ZMTP 3 by hand: a peer that does what libzmq's own never do."""

import socket
import struct

GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)


class RawPeer:
    def __init__(self, endpoint: str, kind: bytes, timeout: float = 5.0) -> None:
        host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
        self.socket = socket.create_connection((host, int(port)), timeout)
        self.socket.sendall(GREETING)
        self.read(len(GREETING))
        ready = b"\x05READY\x0bSocket-Type" + struct.pack(">I", len(kind)) + kind
        self.socket.sendall(b"\x04" + bytes([len(ready)]) + ready)

    def read(self, size: int) -> bytes:
        got = b""
        while len(got) < size:
            more = self.socket.recv(size - len(got))
            if not more:
                raise ConnectionError("ended")
            got += more
        return got

    def send(self, frame: bytes, more: bool = False, times: int = 1) -> None:
        header = b"\x03" if more else b"\x02"
        self.socket.sendall((header + struct.pack(">Q", len(frame)) + frame) * times)

    def ended(self) -> bool:
        """Whether the daemon ended the connection; reads what it still sent."""
        try:
            while self.socket.recv(1 << 16):
                pass
        except TimeoutError:
            return False
        except OSError:
            pass
        return True

    def close(self) -> None:
        self.socket.close()
