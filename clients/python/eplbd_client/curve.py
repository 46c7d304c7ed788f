# SPDX-License-Identifier: Apache-2.0
"""CURVE keys, as `eplbctl keygen` writes them: Z85, 40 characters."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Union

import zmq

_KEY_CHARACTERS = 40


def read_key(path: Union[str, os.PathLike[str]], key: str) -> str:
    """The key named "public-key" or "secret-key" in a file: a bare key or a `NAME = "KEY"` line."""
    for line in Path(path).read_text("utf-8").splitlines():
        name, separator, value = line.partition("=")
        # A bare key may hold "=" itself, so only a known name in front makes a line a pair.
        text = value if separator and name.strip() == key else line
        text = text.strip().strip('"')
        if len(text) == _KEY_CHARACTERS and not text.startswith("#"):
            return text
    raise ValueError(f"{path}: holds no {key} of {_KEY_CHARACTERS} characters")


@dataclass(frozen=True)
class CurveKeys:
    """This worker's key pair, and the daemon's public key by which it knows whom it talks to."""

    public: str
    secret: str = field(repr=False)
    server: str

    def __post_init__(self) -> None:
        for name in ("public", "secret", "server"):
            if len(getattr(self, name)) != _KEY_CHARACTERS:
                raise ValueError(f"the {name} key has not {_KEY_CHARACTERS} characters of Z85")

    @staticmethod
    def from_files(
        secret_file: Union[str, os.PathLike[str]], server_file: Union[str, os.PathLike[str]]
    ) -> CurveKeys:
        """The public key is computed from the secret one; the server's is its public key."""
        secret = read_key(secret_file, "secret-key")
        public = zmq.curve_public(secret.encode()).decode()
        return CurveKeys(public, secret, read_key(server_file, "public-key"))

    def apply(self, socket: zmq.Socket) -> None:
        socket.curve_publickey = self.public.encode()
        socket.curve_secretkey = self.secret.encode()
        socket.curve_serverkey = self.server.encode()
