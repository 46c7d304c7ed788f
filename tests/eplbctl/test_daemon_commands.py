# SPDX-License-Identifier: Apache-2.0
"""The commands for a running daemon, against a running daemon, with `eplbctl load` as its fleet."""

import json
import os
import pty
import re
import signal
import socket
import subprocess
import tempfile
import threading
import unittest
from pathlib import Path

import numpy as np

from harness import SHAPE, DaemonTest, eventually, program
from workers import Publisher

FAILED, USAGE = 1, 2


class Commands(DaemonTest):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def start(self, seconds=60, **changes):
        """A daemon, and a fleet that is balanced once."""
        self.eplbd = self.daemon(**changes)
        self.start_fleet(seconds)
        eventually(lambda: self.version() > 0, "the fleet's first update")

    def start_fleet(self, seconds, *flags, stderr=None):
        config = self.folder / "eplbd.yaml"
        config.write_text(json.dumps(self.eplbd.config | self.eplbd.bound, indent=1))
        self.fleet = subprocess.Popen(
            [program("eplbctl"), "load", "--config", str(config), "--http", self.eplbd.http,
             "--counts", self.eplbd.counts, "--placements", self.eplbd.placements,
             "--interval", "0.05", "--apply-seconds", "0.1", "--sources", "3", "--json",
             "--seconds", str(seconds), *flags],
            stdout=subprocess.PIPE, stderr=stderr, text=True,
        )
        self.addCleanup(self.end, self.fleet)

    @staticmethod
    def end(fleet):
        fleet.kill()
        fleet.wait()
        for pipe in (fleet.stdout, fleet.stderr):
            if pipe:
                pipe.close()

    def refused_fleet(self):
        """What a fleet says that must not start."""
        self.start_fleet(60, stderr=subprocess.PIPE)
        told = self.fleet.communicate(timeout=20)[1]
        self.assertEqual(FAILED, self.fleet.returncode, told)
        self.assertIn("--force", told)
        return told

    def ctl(self, *arguments, expect=0):
        command = [program("eplbctl"), "--socket", self.eplbd.config["control"]["socket"]]
        result = subprocess.run([*command, *map(str, arguments)], capture_output=True, text=True,
                                timeout=30)
        if result.returncode != expect:
            raise AssertionError(f"exit {result.returncode}: {result.stdout}{result.stderr}")
        return result.stdout if expect == 0 else result.stdout + result.stderr

    def status(self):
        return self.eplbd.get_json("/api/v1/status")

    def version(self):
        return self.status()["placement"]["version"]

    def test_the_fleet_is_balanced_and_ends_at_a_signal(self):
        self.start()
        eventually(lambda: self.status()["placement"]["applied"], "the update applied")
        lines = [json.loads(self.fleet.stdout.readline()) for _ in range(3)]
        last = lines[-1]
        self.assertLess(last["imbalance"], last["imbalance_initial"])
        self.assertGreater(last["moves"], 0)
        self.assertEqual(0, last["messages_lost"])
        self.assertEqual(0, last["messages_rejected"])
        self.assertGreaterEqual(self.status()["placement"]["version"], last["version"])
        names = {worker["source"] for worker in self.status()["workers"]}
        self.assertLessEqual({"sim0", "sim1", "sim2"}, names)
        self.fleet.send_signal(signal.SIGTERM)
        self.assertEqual(0, self.fleet.wait(10))

    def test_a_fleet_without_a_daemon_says_so(self):
        result = subprocess.run(
            [program("eplbctl"), "load", "--counts", "tcp://127.0.0.1:1", "--placements",
             "tcp://127.0.0.1:1", "--http", "127.0.0.1:1", "--seconds", "0.3"],
            capture_output=True, text=True, timeout=30,
        )
        self.assertEqual(FAILED, result.returncode)
        self.assertIn("no eplbd was heard", result.stderr)

    def test_a_fleet_keeps_away_from_workers_and_from_what_they_left(self):
        self.eplbd = self.daemon(mode="observe")
        counting = Publisher(self.eplbd.counts, source="dp0").connected()
        counting.counts(np.ones((SHAPE["layers"], SHAPE["logical_experts"])))
        eventually(lambda: self.status()["workers"], "the worker heard")
        self.assertIn("test has live workers (dp0)", self.refused_fleet())
        # A group that is silent is one all the same.
        self.eplbd.reload(workers={"timeout": "1ms"})
        eventually(lambda: not self.status()["workers"][0]["live"], "the worker silent")
        table = np.tile(np.arange(SHAPE["slots"]) % SHAPE["logical_experts"], (SHAPE["layers"], 1))
        counting.running = (12, 3)
        counting.state(table, "applied")
        eventually(lambda: self.version() == 3, "its placement adopted")
        self.assertIn("version 3 of the group of dp0", self.refused_fleet())
        # And so it is while a new daemon has heard nobody yet.
        self.eplbd.stop()
        counting.socket.close()
        self.eplbd.start()
        self.assertIn("a group that is not connected", self.refused_fleet())
        self.assertEqual([], self.status()["workers"])
        self.start_fleet(60, "--force")
        eventually(lambda: self.status()["workers"], "the fleet that was told to")

    def test_a_fleet_follows_another_and_is_refused_by_a_daemon_of_one_engine(self):
        self.start()
        self.end(self.fleet)
        self.start_fleet(60)
        self.assertTrue(json.loads(self.fleet.stdout.readline())["daemon_heard"])
        self.end(self.fleet)
        self.eplbd.config["workers"] = {"engine": "vllm"}
        self.start_fleet(60, stderr=subprocess.PIPE)
        self.assertIn("workers.engine is vllm", self.fleet.communicate(timeout=20)[1])
        self.assertEqual(USAGE, self.fleet.returncode)

    def test_a_fleet_connects_where_the_daemon_binds_to_every_address(self):
        self.eplbd = self.daemon()
        config = self.folder / "eplbd.yaml"
        everywhere = {
            name: {"bind": [address.replace("127.0.0.1", "*")]}
            for name, address in (("counts", self.eplbd.counts),
                                  ("placements", self.eplbd.placements))
        }
        config.write_text(json.dumps(
            self.eplbd.config
            | {"endpoints": everywhere, "security": {"allow_plaintext_remote": True}}
        ))
        subprocess.run(
            [program("eplbctl"), "load", "--config", str(config), "--http", self.eplbd.http,
             "--interval", "0.05", "--seconds", "1", "--json"],
            check=True, capture_output=True, timeout=30,
        )

    def test_status_tells_people_and_scripts(self):
        self.start()
        text = self.ctl("status")
        self.assertIn("test  active  healthy", text)
        self.assertIn("3 live of 3", text)
        answer = json.loads(self.ctl("status", "--json"))
        self.assertEqual("test", answer["deployment"])
        self.assertTrue(answer["healthy"])
        # A group of another shape than the configuration's, until it goes.
        self.end(self.fleet)
        self.start_fleet(60, "--slots", "48")
        status = eventually(lambda: (s := self.status())["problems"] and s, "a problem")
        self.assertFalse(status["healthy"])
        text = self.ctl("status", expect=1)
        self.assertIn("DEGRADED", text)
        self.assertIn(status["problems"][0], text)
        self.assertEqual(status["problems"],
                         json.loads(self.ctl("status", "--json", expect=1))["problems"])

    def test_orders(self):
        self.start(workers={"timeout": "60s"})
        self.ctl("pause", "--for", "2h")
        status = self.status()
        self.assertTrue(status["paused"])
        self.assertAlmostEqual(7200, status["paused_until"] - status["ts"], delta=60)
        self.assertRegex(self.ctl("status"), r"paused for(.|\n)*possible in [^,]*, after the pause, at ")
        self.ctl("resume")
        self.assertFalse(self.status()["paused"])
        self.ctl("pause")
        self.assertIsNone(self.status()["paused_until"])
        self.assertIn("none until it is resumed", self.ctl("status"))
        self.ctl("resume")
        self.assertIn("active, as configured", self.ctl("mode"))
        self.ctl("mode", "shadow")
        self.assertEqual("shadow", self.status()["mode"])
        self.assertIn("shadow, as ordered; the configuration says active", self.ctl("mode"))
        self.assertEqual({"mode": "shadow", "mode_configured": "active"},
                         json.loads(self.ctl("mode", "--json")))
        self.ctl("mode", "config")
        self.assertEqual("active", self.status()["mode"])
        self.ctl("reload")
        self.assertIn("77", self.ctl("rollback", 77, expect=FAILED))
        eventually(lambda: self.status()["placement"]["applied"], "applied")
        before = self.version()
        self.assertIn(f"would publish version {before + 1}", self.ctl("rollback", "--dry-run"))
        self.assertFalse(self.status()["paused"])
        self.assertIn(f"version {before + 1}", self.ctl("rollback"))
        self.assertTrue(self.status()["paused"])
        self.assertIn("none of them down", self.ctl("gpu"))
        self.ctl("gpu", "drain", 3)
        self.assertEqual([3], eventually(lambda: self.status()["gpus_down"], "drained"))
        self.assertIn("GPU 3: drained", self.ctl("gpu"))
        self.assertEqual([3], json.loads(self.ctl("gpu", "--json"))["gpus_down"])
        self.assertTrue(json.loads(self.ctl("gpu", "--json", "restore", 3))["done"])
        self.assertIn("0 to 7", self.ctl("gpu", "drain", 99, expect=FAILED))
        self.assertIn("scale the group first",
                      self.ctl("resize", "--gpus", 10, "--slots", 50, "--dry-run", expect=FAILED))
        self.assertIn("multiple of gpus",
                      self.ctl("resize", "--gpus", 10, "--slots", 51, expect=FAILED))
        for wrong in (("mode", "x"), ("pause", "--for", "3"), ("gpu", "drain"),
                      ("resize", "--gpus", 10), ("resize", "--gpus", 0, "--slots", 50)):
            self.ctl(*wrong, expect=USAGE)

    def test_what_is_in_force_is_not_published_and_what_is_worse_is_said(self):
        self.start()
        self.eplbd.reload(trigger={"imbalance": 100})  # no update by itself any more
        eventually(lambda: self.status()["placement"]["applied"], "applied")
        same = self.folder / "same.npy"
        self.ctl("placement", "export", "--to", same)
        version = self.version()
        self.assertIn("in force already", self.ctl("placement", "import", same))
        self.assertEqual(version, self.version())
        self.assertFalse(self.status()["paused"])
        # The initial placement again: what it costs is said, and that nobody hears of it.
        self.end(self.fleet)
        self.eplbd.reload(workers={"timeout": "100ms"})
        eventually(lambda: self.status()["health"] == "waiting", "nobody is there")
        answer = json.loads(self.ctl("rollback", 0, "--json"))
        self.assertRegex(answer["warnings"][0], r"imbalance rises, \d\.\d+ -> \d\.\d+: .* % longer")
        self.assertIn("no worker is heard", answer["warnings"][1])

    def test_a_dry_run_publishes_nothing(self):
        self.start()
        eventually(lambda: self.status()["placement"]["applied"], "applied")
        self.ctl("rollback", 0)  # the initial placement: there is something to gain, and it holds
        eventually(lambda: self.status()["placement"]["applied"], "applied")
        version = self.version()
        self.assertIn(f"would publish version {version + 1}, ", self.ctl("rebalance", "--dry-run"))
        answer = json.loads(self.ctl("rebalance", "--dry-run", "--json"))
        self.assertTrue(answer["done"])
        self.assertGreater(answer["moves"], 0)
        self.assertLess(answer["imbalance_after"], answer["imbalance_before"])
        self.assertEqual(version, self.version())
        self.assertIn(f"version {version + 1}", self.ctl("rebalance"))

    def test_a_placement_goes_out_and_comes_back_in_every_format(self):
        self.start()
        self.ctl("pause")
        eventually(lambda: self.status()["placement"]["applied"], "applied")
        table = np.array(self.eplbd.get_json("/api/v1/placement")["physical_to_logical_map"])
        files = {name: self.folder / f"out.{name}" for name in
                 ("json", "trtllm", "vllm-ascend", "npy")}
        for name, file in files.items():
            self.ctl("placement", "export", "--to", file, "--format", name)
        np.testing.assert_array_equal(np.load(files["npy"]), table)
        shown = json.loads(files["json"].read_text())["physical_to_logical_map"]
        np.testing.assert_array_equal(shown, table)
        for name, file in files.items():
            with self.subTest(format=name):
                diff = json.loads(self.ctl("placement", "diff", file, "--json"))
                self.assertEqual({"layers_changed": 0, "moves": []}, diff)
        initial = np.tile(np.arange(SHAPE["slots"]) % SHAPE["logical_experts"],
                          (SHAPE["layers"], 1)).astype(np.int32)
        other = self.folder / "initial.npy"
        np.save(other, initial)
        self.assertIn("moves", self.ctl("placement", "diff", other))
        self.ctl("placement", "import", other)
        answer = self.eplbd.get_json("/api/v1/placement")
        self.assertEqual("imported", answer["reason"])
        # What stays on a GPU keeps its slot, so only what lies on which GPU is the file's.
        for ours, theirs in zip(answer["physical_to_logical_map"], initial):
            for gpu in range(SHAPE["gpus"]):
                part = slice(gpu * 5, gpu * 5 + 5)
                self.assertEqual(sorted(theirs[part]), sorted(ours[part]))
        bad = self.folder / "bad.json"
        bad.write_text("[[0, 1]]")
        self.assertIn(str(bad), self.ctl("placement", "import", bad, expect=FAILED))
        self.assertIn("layer", self.ctl("placement"))
        self.assertIn("GPU    7", self.ctl("placement", "--layer", 0))

    def test_a_recording_is_a_trace(self):
        self.start()
        file = self.folder / "recorded.npy"
        self.ctl("record", "--to", file, "--for", "1s", "--every", "200ms")
        trace = np.load(file)
        self.assertEqual((5, SHAPE["layers"], SHAPE["logical_experts"]), trace.shape)
        self.assertTrue((trace.sum((1, 2)) > 0).all())
        rows = trace.sum(2)
        self.assertTrue((rows == rows[:, :1]).all(), "layers route the same tokens")
        self.assertIn("never overwritten",
                      self.ctl("record", "--to", file, "--for", "1s", expect=FAILED))
        replayed = subprocess.run(
            [program("eplbctl"), "replay", "--trace", str(file), "--gpus", "8", "--slots", "40"],
            capture_output=True, text=True, timeout=30, check=True,
        )
        self.assertEqual(5, json.loads(replayed.stdout)["steps"])

    def test_watch_goes_on_until_a_signal(self):
        self.start()
        watch = subprocess.Popen(
            [program("eplbctl"), "watch", "--socket", self.eplbd.config["control"]["socket"],
             "--every", "50ms", "--json"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for _ in range(3):
            self.assertEqual("test", json.loads(watch.stdout.readline())["deployment"])
        self.eplbd.stop()
        self.assertIn("is eplbd running?", watch.stderr.readline())
        self.eplbd.start()
        self.assertEqual("test", json.loads(watch.stdout.readline())["deployment"])
        watch.send_signal(signal.SIGINT)
        out, _ = watch.communicate(timeout=10)
        self.assertEqual(0, watch.returncode)
        for line in out.splitlines():  # what failed meanwhile is not among the objects
            json.loads(line)

    def test_the_log_is_an_object_a_line(self):
        self.eplbd = self.daemon(log={"format": "json"})
        file = self.eplbd.folder / "eplbd.yaml"
        file.write_text('{"deployment": "test",\n"mode": "idle",\n"limit": {}}\n')
        refused = self.ctl("reload", expect=FAILED)
        for problem in (f"{file}:1: topology: ", f"{file}:2: mode: ", f"{file}:3: limit: "):
            self.assertIn(problem, refused)
        entries = [json.loads(line) for line in self.eplbd.log().splitlines()]
        errors = [entry["message"] for entry in entries if entry["level"] == "error"]
        self.assertEqual(3, len(errors), entries)
        self.assertTrue(all(str(file) in error for error in errors))

    def test_watch_on_a_terminal_ends_with_q(self):
        self.start()
        ours, its = pty.openpty()
        self.addCleanup(os.close, ours)
        watch = subprocess.Popen(
            [program("eplbctl"), "watch", "--socket", self.eplbd.config["control"]["socket"]],
            stdin=its, stdout=its, stderr=its,
        )
        self.addCleanup(watch.kill)
        os.close(its)
        shown = b""
        while b"worst layer" not in shown:
            shown += os.read(ours, 65536)
        os.write(ours, b"xq")
        self.assertEqual(0, watch.wait(20))

    def test_a_daemon_of_another_release_ends_in_a_sentence(self):
        path = str(self.folder / "old.sock")
        eplbctl = program("eplbctl")
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path)
            server.listen()
            asked = []

            def answer(said):
                peer, _ = server.accept()
                with peer:
                    head = b""
                    while b"\r\n\r\n" not in head:
                        head += peer.recv(65536)
                    head, _, body = head.partition(b"\r\n\r\n")
                    length = re.search(rb"Content-Length: (\d+)", head)
                    while length and len(body) < int(length[1]):
                        body += peer.recv(65536)
                    asked.append(body)
                    peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(said), said))

            def run(command, said):
                thread = threading.Thread(target=answer, args=(said,))
                thread.start()
                result = subprocess.run([eplbctl, "--socket", path, command],
                                        capture_output=True, text=True, timeout=10)
                thread.join(10)
                return result

            result = run("status", b'{"deployment": "old", "health": "healthy"}')
            # What may be needed at once goes by no key that an earlier release does not know.
            self.assertEqual(0, run("rollback", b'{"done": true, "detail": ""}').returncode)
            self.assertEqual([b"", b"{}"], asked)
        self.assertEqual(FAILED, result.returncode)
        self.assertIn("is eplbd of another release?", result.stderr)
        self.assertNotIn("json.exception", result.stderr)

    def test_no_daemon_there(self):
        result = subprocess.run(
            [program("eplbctl"), "--socket", str(self.folder / "none"), "status"],
            capture_output=True, text=True, timeout=10,
        )
        self.assertEqual(FAILED, result.returncode)
        self.assertIn("is eplbd running?", result.stderr)


if __name__ == "__main__":
    unittest.main()
