# SPDX-License-Identifier: Apache-2.0
"""Runs page_test.js in headless Chromium against a daemon with a live group of workers."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import unittest
from pathlib import Path

from harness import SHAPE, DaemonTest, eventually
from workers import Follower, Publisher, initial_map, skewed_load

FOLDER = Path(__file__).resolve().parent
# A name that would run, were it ever taken for markup.
NAMES = ("dp0", "dp1", "dp2", "<img src=x onerror=alert(1)>")


class Group(threading.Thread):
    """Workers that count at ten messages a second and follow placements, until told to end."""

    def __init__(self, daemon) -> None:
        super().__init__(daemon=True)
        self.endpoints = daemon.counts, daemon.placements
        self.applied = 0
        self.ended = threading.Event()

    def run(self) -> None:
        counts, placements = self.endpoints
        publishers = [Publisher(counts, source=name) for name in NAMES]
        follower = Follower(placements, held=((0, 0), initial_map(**SHAPE)))
        load = skewed_load(7, **SHAPE)
        while not self.ended.is_set():
            newer = follower.poll(0.1)
            for publisher in publishers:
                publisher.running = follower.held[0]
                publisher.counts(load // len(publishers))
            if newer:
                publishers[0].state(follower.held[1], "applied")
                self.applied += 1
        for worker in (*publishers, follower):
            worker.close()

    def end(self) -> None:
        self.ended.set()
        self.join(10)


class PageTest(DaemonTest):
    def test_page(self) -> None:
        if not shutil.which("node"):
            self.skipTest("node is not installed")
        if not os.access(os.environ.get("CHROMIUM", "/usr/bin/chromium"), os.X_OK):
            self.skipTest("chromium is not installed")
        if not (FOLDER / "node_modules/playwright-core").is_dir():
            self.skipTest("playwright-core is not installed: npm ci in tests/browser")

        daemon = self.daemon()
        group = Group(daemon)
        group.start()
        self.addCleanup(group.end)

        def balanced() -> bool:
            status = daemon.get_json("/api/v1/status")
            return group.applied > 0 and any(
                one["verdict"] == "balanced" for one in status["decisions"][:1]
            )

        eventually(balanced, "the group is balanced", 30, 0.1)
        browser = subprocess.Popen(
            ["node", "page_test.js"],
            cwd=FOLDER,
            env={**os.environ, "EPLBD_URL": f"http://{daemon.http}/"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.addCleanup(browser.kill)
        for order in browser.stdout:
            {"stop": daemon.stop, "start": daemon.start}[order.strip()]()
            browser.stdin.write("done\n")
            browser.stdin.flush()
        browser.stdin.close()
        browser.stdout.close()
        self.assertEqual(browser.wait(30), 0, "see the cases above")


if __name__ == "__main__":
    unittest.main()
