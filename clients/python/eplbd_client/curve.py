# SPDX-License-Identifier: Apache-2.0
"""CURVE keys, as `eplbctl keygen` writes them: Z85, 40 characters."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Union

import zmq

_KEY_CHARACTERS = 40


def read_key(path: Union[str, os.PathLike[str]]) -> str:
    """The first key of a file. Lines that begin with "# ", and what follows a key, are left out."""
    for line in Path(path).read_text("utf-8").splitlines():
        if line and not line.startswith("# "):
            key = line.split()[0]
            if len(key) == _KEY_CHARACTERS:
                return key
            break
    raise ValueError(f"{path}: holds no CURVE key, {_KEY_CHARACTERS} characters of Z85")


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
        secret = read_key(secret_file)
        public = zmq.curve_public(secret.encode()).decode()
        return CurveKeys(public, secret, read_key(server_file))

    def apply(self, socket: zmq.Socket[bytes]) -> None:
        socket.curve_publickey = self.public.encode()
        socket.curve_secretkey = self.secret.encode()
        socket.curve_serverkey = self.server.encode()
