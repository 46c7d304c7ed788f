# SPDX-License-Identifier: Apache-2.0
"""Starts the built daemon and looks at it from outside. Nothing here uses clients/python."""

from __future__ import annotations

import http.client
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
SHAPE = {"layers": 4, "logical_experts": 32, "slots": 40, "gpus": 8}
# Reacts within a few tenths of a second to a handful of messages.
QUICK = {
    "window": {"half_life": "2s"},
    "trigger": {
        "imbalance": 1.10,
        "settle": 1.05,
        "interval": "20ms",
        "cooldown": "100ms",
        "min_tokens_per_gpu_step": 0,
        "min_gain": 0.005,
    },
    "limits": {"updates_per_hour": 0},
    "workers": {"timeout": "5s", "apply_timeout": "5s"},
}


def program(name: str) -> str:
    """From the environment, as ctest sets it: EPLBD, EPLBCTL; else from PATH."""
    found = os.environ.get(name.upper()) or shutil.which(name)
    if not found:
        raise unittest.SkipTest(f"no {name}: set {name.upper()} to the built program")
    if not os.access(found, os.X_OK):
        raise AssertionError(f"{found}: no program")
    return found


def merged(base: dict, changes: dict) -> dict:
    result = dict(base)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if both else value
    return result


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=10)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def ask(connection: http.client.HTTPConnection, method: str, path: str, body=None, headers=()):
    try:
        connection.request(
            method, path, None if body is None else json.dumps(body), dict(headers)
        )
        answer = connection.getresponse()
        return answer.status, answer.read().decode(), dict(answer.getheaders())
    finally:
        connection.close()


SAMPLE = re.compile(r"^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? ([^ ]+)$")
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


class Metrics:
    """One scrape. metrics("name", reason="x"): the value, None where there is no such series."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.samples: dict[tuple, float] = {}
        for line in text.splitlines():
            match = SAMPLE.match(line)
            if match and not line.startswith("#"):
                labels = {k: v for k, v in LABEL.findall(match[2] or "") if k != "deployment"}
                self.samples[match[1], tuple(sorted(labels.items()))] = float(match[3])

    def __call__(self, name: str, **labels: str):
        return self.samples.get((f"eplbd_{name}", tuple(sorted(labels.items()))))

    def by_label(self, name: str, label: str) -> dict[str, float]:
        """All series of a family that differ in one label, without zeros."""
        return {
            dict(labels)[label]: value
            for (found, labels), value in self.samples.items()
            if found == f"eplbd_{name}" and value and label in dict(labels)
        }


class Daemon:
    """One eplbd with a folder of its own. Ports are free ones, kept over restarts."""

    def __init__(self, deployment: str = "test", **changes) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="eplbd-"))
        self.deployment = deployment
        self.config = merged(
            {
                "deployment": deployment,
                "topology": SHAPE,
                "endpoints": {
                    "counts": {"bind": ["tcp://127.0.0.1:*"]},
                    "placements": {"bind": ["tcp://127.0.0.1:*"]},
                },
                "http": {"listen": "127.0.0.1:0"},
                "control": {"socket": str(self.folder / "control.sock")},
                "state": {"directory": str(self.folder / "state")},
                **QUICK,
            },
            changes,
        )
        self.environment: dict[str, str] = {}  # beside that of the test
        self.limits: dict[int, tuple[int, int]] = {}  # setrlimit(2)
        self.log_to: int | None = None  # a descriptor instead of the log file
        self.process: subprocess.Popen | None = None
        self.status: dict = {}
        self.bound: dict = {}  # where it listened: a restart takes the same ports

    # ---- life ----

    def start(self) -> Daemon:
        self.begin()
        eventually(self.answers, "eplbd answers on its control socket")
        self.status = self.get_json("/api/v1/status")
        endpoints = self.status["endpoints"]
        # libzmq names a loopback port of its IPv6 socket the mapped way.
        self.counts, self.placements = (
            endpoints[name][0].replace("[::ffff:127.0.0.1]", "127.0.0.1")
            for name in ("counts", "placements")
        )
        self.http = endpoints["http"].removeprefix("http://")
        self.bound = {
            "endpoints": {"counts": {"bind": [self.counts]}, "placements": {"bind": [self.placements]}},
            "http": {"listen": self.http},
        }
        return self

    def begin(self) -> None:
        """Runs it, and does not wait."""
        self.config = merged(self.config, self.bound)
        config = self.folder / "eplbd.yaml"
        # JSON is YAML.
        config.write_text(json.dumps(self.config, indent=1))
        with open(self.folder / "log", "ab") as log:
            command = [program("eplbd"), "--config", str(config)]
            environment = {k: v for k, v in os.environ.items() if not k.endswith("_DIRECTORY")}
            environment.update(self.environment)
            self.process = subprocess.Popen(
                command,
                stdout=log,
                stderr=self.log_to or log,
                env=environment,
                preexec_fn=lambda: [resource.setrlimit(*limit) for limit in self.limits.items()],
            )

    def answers(self) -> bool:
        if self.process.poll() is not None:
            raise AssertionError(f"eplbd ended with {self.process.returncode}:\n{self.log()}")
        try:
            return ask(self.control(), "GET", "/readyz")[0] == 200
        except (OSError, http.client.HTTPException):
            return False

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        self.process.terminate()
        return self.process.wait(10)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)

    def reload(self, **changes) -> None:
        self.config = merged(self.config, changes)
        (self.folder / "eplbd.yaml").write_text(json.dumps(self.config, indent=1))
        status, body, _ = ask(self.control(), "POST", "/v1/reload", {})
        if status != 200:
            raise AssertionError(body)

    def forget(self) -> None:
        """As if the disk was lost."""
        shutil.rmtree(self.folder / "state")

    def close(self) -> None:
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(10)
        shutil.rmtree(self.folder, ignore_errors=True)

    # ---- what it shows ----

    def control(self) -> UnixConnection:
        return UnixConnection(self.config["control"]["socket"])

    def get(self, path: str, **headers):
        host, _, port = self.http.rpartition(":")
        return ask(http.client.HTTPConnection(host, int(port), timeout=10), "GET", path,
                   headers=headers)

    def get_json(self, path: str) -> dict:
        status, body, _ = ask(self.control(), "GET", path)
        if status != 200:
            raise AssertionError(f"{path}: {status} {body}")
        return json.loads(body)

    def metrics(self) -> Metrics:
        return Metrics(ask(self.control(), "GET", "/metrics")[1])

    def placement(self):
        """((term, version), map [layers, slots]) as the API says."""
        answer = self.get_json("/api/v1/placement")
        table = np.array(answer["physical_to_logical_map"], np.int32)
        return (answer["term"], answer["version"]), table

    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def usage(self) -> tuple[float, float]:
        """(CPU seconds so far, largest RSS in MiB)."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        peak = int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"), peak


def eventually(condition, what: str, timeout: float = 30.0, poll: float = 0.01):
    """What `condition` returns once it is true. Fails, naming `what`, when it never is."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout} s: {what}")
        time.sleep(poll)


class DaemonTest(unittest.TestCase):
    """A daemon a test; its log is shown when the test fails."""

    def daemon(self, **changes) -> Daemon:
        daemon = Daemon(**changes)
        self.addCleanup(self._end, daemon)
        return daemon.start()

    def _end(self, daemon: Daemon) -> None:
        outcome = getattr(self._outcome, "result", None)
        failed = outcome and any(test is self for test, _ in outcome.failures + outcome.errors)
        if failed or os.environ.get("EPLBD_TEST_LOG"):
            print(f"---- {self.id()}: {daemon.folder}\n{daemon.log()}", flush=True)
        code = daemon.process.poll() if daemon.process else None
        daemon.close()
        # SIGKILL (-9) is a test's own doing, anything else a crash.
        self.assertIn(code, (None, 0, -signal.SIGKILL), "eplbd ended by itself")
