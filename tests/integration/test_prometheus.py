# SPDX-License-Identifier: Apache-2.0
"""A real Prometheus scrapes the daemon and runs the shipped rules."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import unittest
import urllib.parse
import urllib.request
from pathlib import Path

import numpy as np
from harness import ROOT, SHAPE, DaemonTest, eventually
from workers import Follower, Publisher, initial_map, skewed_load


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Prometheus:
    """Debian's prometheus, scraping one target as job eplbd, with the shipped rules. Their waits
    (`for`) are cut to a second; nothing else of them is changed."""

    def __init__(self, target: str) -> None:
        program = shutil.which("prometheus")
        if not program:
            raise unittest.SkipTest("prometheus is not installed")
        self.folder = Path(tempfile.mkdtemp(prefix="eplbd-prometheus-"))
        rules = (ROOT / "metrics/eplbd.rules.yml").read_text()
        rules, waits = re.subn(r"(?m)^(\s+for:) .*$", r"\1 1s", rules)
        assert waits >= 14
        (self.folder / "eplbd.rules.yml").write_text(rules)
        config = {
            "global": {"scrape_interval": "500ms", "evaluation_interval": "500ms"},
            "rule_files": ["eplbd.rules.yml"],
            "scrape_configs": [{"job_name": "eplbd", "static_configs": [{"targets": [target]}]}],
        }
        (self.folder / "prometheus.yml").write_text(json.dumps(config))  # JSON is YAML
        self.address = f"127.0.0.1:{free_port()}"
        with open(self.folder / "log", "wb") as log:
            self.process = subprocess.Popen(
                [
                    program,
                    f"--config.file={self.folder}/prometheus.yml",
                    f"--storage.tsdb.path={self.folder}/data",
                    f"--web.listen-address={self.address}",
                ],
                stdout=log,
                stderr=log,
            )

    def close(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)
        shutil.rmtree(self.folder, ignore_errors=True)

    def ask(self, path: str, **parameters):
        if self.process.poll() is not None:
            raise AssertionError((self.folder / "log").read_text())
        url = f"http://{self.address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return json.load(answer)["data"]
        except OSError:
            return None  # not up yet

    def query(self, expression: str) -> list[tuple[dict, float]]:
        data = self.ask("query", query=expression)
        return [(one["metric"], float(one["value"][1])) for one in data["result"]] if data else []

    def value(self, expression: str) -> float | None:
        found = self.query(expression)
        return found[0][1] if len(found) == 1 else None

    def firing(self) -> set[str]:
        data = self.ask("alerts")
        alerts = data["alerts"] if data else []
        return {one["labels"]["alertname"] for one in alerts if one["state"] == "firing"}


class PrometheusTest(DaemonTest):
    def prometheus(self, daemon) -> Prometheus:
        prometheus = Prometheus(daemon.http)
        self.addCleanup(prometheus.close)
        eventually(lambda: prometheus.value("up") == 1, "up == 1", 30, 0.1)
        return prometheus

    def test_scrapes_what_the_daemon_shows(self) -> None:
        daemon = self.daemon(mode="observe")
        prometheus = self.prometheus(daemon)
        publisher = Publisher(daemon.counts, source="dp0").connected()
        self.addCleanup(publisher.close)
        tokens = np.ones((SHAPE["layers"], SHAPE["logical_experts"]), np.uint32)
        publisher.counts(tokens)
        eventually(
            lambda: prometheus.value("eplbd_counts_messages_total") == 1, "the message", 10, 0.1
        )
        self.assertEqual(prometheus.value("eplbd_counts_tokens_total"), tokens.sum())
        self.assertEqual(prometheus.value('eplbd_mode{mode="observe"}'), 1)
        eventually(lambda: prometheus.value("eplbd_imbalance"), "the imbalance", 30, 0.1)
        self.assertEqual(len(prometheus.query("eplbd_layer_imbalance")), SHAPE["layers"])
        self.assertEqual(len(prometheus.query("eplbd_gpu_load_ratio")), SHAPE["gpus"])
        for labels, _ in prometheus.query('{__name__=~"eplbd_.+|process_.+"}'):
            self.assertEqual(labels["deployment"], "test", labels)
        self.assertGreater(prometheus.value("process_resident_memory_bytes"), 1 << 20)
        self.assertEqual(prometheus.ask("targets")["activeTargets"][0]["lastError"], "")
        for group in prometheus.ask("rules")["groups"]:
            for rule in group["rules"]:
                self.assertEqual(rule["health"], "ok", rule.get("lastError"))

    def test_every_query_of_the_dashboard_is_answered(self) -> None:
        daemon = self.daemon()
        prometheus = self.prometheus(daemon)
        publisher = Publisher(daemon.counts, source="dp0").connected()
        self.addCleanup(publisher.close)
        load = skewed_load(1, **SHAPE)
        follower = Follower(daemon.placements, held=((0, 0), initial_map(**SHAPE)))
        self.addCleanup(follower.close)

        def updated_and_scraped() -> bool:
            if follower.poll(0.1):
                publisher.running = follower.held[0]
                publisher.state(follower.held[1], "applied", apply_seconds=0.1)
            publisher.counts(load, gpu_tokens=np.ones((SHAPE["layers"], SHAPE["gpus"])) * 9)
            return bool(prometheus.query("rate(eplbd_moves_total[30s]) > 0")
                        and prometheus.query("eplbd_gain_realised")
                        and prometheus.query("eplbd_imbalance_floor"))

        eventually(updated_and_scraped, "an update was scraped", 30)
        dashboard = json.loads((ROOT / "metrics/grafana-dashboard.json").read_text())
        silent = set()
        for panel in dashboard["panels"]:
            for target in panel["targets"]:
                query = target["expr"].replace("$deployment", "test|none")
                query = query.replace("$__rate_interval", "30s")
                data = prometheus.ask("query", query=query)
                self.assertIsNotNone(data, query)
                if not data["result"]:
                    silent.add(target["expr"])
        # What is shown only where there is something to show; everything else has a value.
        allowed = ("eplbd_counts_rejected_total", "eplbd_paused", "eplbd_gpus_down",
                   "eplbd_imbalance_would_be")
        self.assertEqual([s for s in silent if not any(name in s for name in allowed)], [])

    def test_an_alert_fires_and_clears(self) -> None:
        daemon = self.daemon(mode="observe")  # active, it would miss its workers
        prometheus = self.prometheus(daemon)
        self.assertEqual(prometheus.firing(), set())

        with self.assertRaises(AssertionError):  # refused
            daemon.reload(trigger={"imbalance": 0.5})
        eventually(
            lambda: prometheus.firing() == {"EplbdReloadFailed"}, "EplbdReloadFailed fires", 20, 0.2
        )
        daemon.reload(trigger={"imbalance": 1.2})
        eventually(lambda: prometheus.firing() == set(), "EplbdReloadFailed clears", 30, 0.2)

    def test_down_fires_and_clears(self) -> None:
        daemon = self.daemon(mode="observe")  # active, it would miss its workers
        prometheus = self.prometheus(daemon)
        daemon.kill()
        eventually(lambda: "EplbdDown" in prometheus.firing(), "EplbdDown fires", 30, 0.2)
        daemon.start()
        eventually(lambda: prometheus.firing() == set(), "EplbdDown clears", 30, 0.2)


if __name__ == "__main__":
    unittest.main()
