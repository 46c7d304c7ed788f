# SPDX-License-Identifier: Apache-2.0
"""etcd on loopback, as Debian packages it: one member, or several that are killed and come back."""

from __future__ import annotations

import base64
import http.client
import json
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import unittest

from harness import eventually


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


class Etcd:
    """Members of one cluster, started and ended one by one. `inside`: the words before a command
    that runs where they run; `tls`: what asks them knows them by; they listen on `listen`."""

    def __init__(self, members: int = 1, flags=(), address: str = "127.0.0.1", listen: str = "",
                 inside=(), tls: ssl.SSLContext | None = None) -> None:
        self.program = shutil.which("etcd")
        if not self.program:
            raise unittest.SkipTest("no etcd: install etcd-server")
        self.folder = tempfile.mkdtemp(prefix="etcd-")
        self.flags = list(flags)
        self.address = address
        self.listen = listen or address
        self.inside = list(inside)
        self.tls = tls
        self.token = ""  # of who asks
        ports = free_ports(2 * members)
        self.clients, self.peers = ports[:members], ports[members:]
        self.processes: list[subprocess.Popen | None] = [None] * members

    def urls_at(self, address: str) -> list[str]:
        scheme = "https" if self.tls else "http"
        return [f"{scheme}://{address}:{port}" for port in self.clients]

    @property
    def urls(self) -> list[str]:
        return self.urls_at(self.address)

    def start(self) -> Etcd:
        for member in range(len(self.clients)):
            self.start_member(member)
        eventually(self.answers, "etcd answers", 30)
        return self

    def start_member(self, member: int) -> None:
        peers = [f"http://127.0.0.1:{port}" for port in self.peers]
        command = [
            *self.inside, self.program, "--name", f"m{member}",
            "--data-dir", f"{self.folder}/{member}",
            "--listen-client-urls", self.urls_at(self.listen)[member],
            "--advertise-client-urls", self.urls[member],
            "--listen-peer-urls", peers[member],
            "--initial-advertise-peer-urls", peers[member],
            "--initial-cluster", ",".join(f"m{i}={url}" for i, url in enumerate(peers)),
            *self.flags,
        ]
        with open(f"{self.folder}/log", "ab") as log:
            self.processes[member] = subprocess.Popen(command, stdout=log, stderr=log)

    def kill(self, member: int = 0) -> None:
        self.processes[member].kill()
        self.processes[member].wait(10)

    def signal(self, number: int) -> None:
        for process in self.processes:
            if process and process.poll() is None:
                process.send_signal(number)

    def close(self) -> None:
        self.signal(signal.SIGKILL)
        for process in self.processes:
            if process:
                process.wait(10)
        shutil.rmtree(self.folder, ignore_errors=True)

    # ---- as its clients see it ----

    def ask(self, path: str, body: dict, member: int = 0) -> dict:
        at = self.address, self.clients[member]
        if self.tls:
            connection = http.client.HTTPSConnection(*at, timeout=5, context=self.tls)
        else:
            connection = http.client.HTTPConnection(*at, timeout=5)
        try:
            headers = {"Authorization": self.token} if self.token else {}
            connection.request("POST", f"/v3/{path}", json.dumps(body), headers)
            answer = connection.getresponse()
            return json.loads(answer.read())
        finally:
            connection.close()

    def answers(self) -> bool:
        for process in self.processes:
            if process and process.poll() is not None:
                with open(f"{self.folder}/log", errors="replace") as log:
                    raise AssertionError(f"etcd ended:\n{log.read()[-2000:]}")
        try:
            return all("leader" in self.ask("maintenance/status", {}, member)
                       for member in range(len(self.clients)))
        except (OSError, http.client.HTTPException, ValueError):
            return False

    def get(self, key: str) -> dict | None:
        """value (bytes), create_revision and mod_revision; None: there is no such key."""
        found = self.ask("kv/range", {"key": base64.b64encode(key.encode()).decode()}).get("kvs")
        if not found:
            return None
        return {
            "value": base64.b64decode(found[0].get("value", "")),
            "create_revision": int(found[0]["create_revision"]),
            "mod_revision": int(found[0]["mod_revision"]),
        }

    def put(self, key: str, value: bytes) -> None:
        self.ask("kv/put", {"key": base64.b64encode(key.encode()).decode(),
                            "value": base64.b64encode(value).decode()})

    def delete(self, key: str) -> None:
        self.ask("kv/deleterange", {"key": base64.b64encode(key.encode()).decode()})
