# SPDX-License-Identifier: Apache-2.0
"""eplbd as a program: its flags, what it prints, and how it exits."""

import json
import re
import subprocess
import unittest

from harness import SHAPE, DaemonTest, eventually, program

USAGE, HELD, CONFIG = 64, 75, 78


class Program(DaemonTest):
    def run_eplbd(self, *flags, expect=0):
        done = subprocess.run([program("eplbd"), *map(str, flags)], capture_output=True, text=True,
                              timeout=20)
        self.assertEqual(expect, done.returncode, done.stdout + done.stderr)
        return done.stdout + done.stderr

    def write(self, daemon, **changes):
        file = daemon.folder / "other.yaml"
        file.write_text(json.dumps(daemon.config | changes, indent=1))
        return file

    def test_flags(self):
        self.assertRegex(self.run_eplbd("--version"), r"^eplbd \d+\.\d+\.\d+\n$")
        self.assertIn("--check-config", self.run_eplbd("--help"))
        for wrong in ((), ("--config",), ("--nope",), ("status",)):
            self.run_eplbd(*wrong, expect=USAGE)

    def test_every_problem_has_its_line_and_key(self):
        daemon = self.daemon()
        file = self.write(daemon, mode="idle", limits={"max_moves": -1}, htpp={},
                          topology=SHAPE | {"slots": 41})
        problems = self.run_eplbd("--config", file, "--check-config", expect=CONFIG).splitlines()
        lines = file.read_text().splitlines()
        keys = set()
        for problem in problems:
            where, line, key = re.match(r"(.*?):(\d+): ([\w.]+): .+", problem).groups()
            self.assertEqual(str(file), where)
            self.assertIn(key.split(".")[-1], lines[int(line) - 1])
            keys.add(key)
        self.assertEqual({"mode", "limits.max_moves", "htpp", "topology.slots"}, keys)
        # The same when it is to serve, each problem an entry of the log.
        served = self.run_eplbd("--config", file, expect=CONFIG).splitlines()
        self.assertEqual([f" error: {problem}" for problem in problems],
                         [re.sub(r"^\S+(?= error: )", "", line) for line in served])

    def test_keys_interfaces_and_folders_that_cannot_be_used_are_problems(self):
        daemon = self.daemon()
        known = daemon.folder / "known"
        known.touch()
        known.chmod(0o644)
        file = self.write(
            daemon,
            endpoints={"counts": {"bind": ["tcp://nosuch0:15557", "ipc:///no/such/counts.sock"]}},
            ha={"user": "eplbd", "password": str(known), "certificate": str(known), "key": str(known)},
            security={"curve_secret_key": "/no/such/key", "authorized_keys": "/no/such/keys"},
        )
        problems = self.run_eplbd("--config", file, "--check-config", expect=CONFIG)
        for wanted in (
            'security.curve_secret_key: cannot read "/no/such/key": No such file or directory',
            'security.authorized_keys: cannot read "/no/such/keys": No such file or directory',
            'this machine has no network interface "nosuch0"',
            'there is no folder "/no/such" for "ipc:///no/such/counts.sock"',
            f'ha.password: cannot read "{known}": anybody may read this secret: chmod 600 it',
            f'ha.key: cannot read "{known}": anybody may read this secret: chmod 600 it',
        ):
            self.assertIn(wanted, problems)
        self.assertEqual(6, len(problems.splitlines()))

    def test_what_is_printed_is_a_configuration_that_prints_the_same(self):
        daemon = self.daemon()
        file = self.write(daemon, window={"half_life": "90s"}, balancer={"seed": 2**64 - 1})
        self.assertEqual(f"{file}: no problems\n",
                         self.run_eplbd("--config", file, "--check-config"))
        printed = self.run_eplbd("--config", file, "--print-config")
        self.assertIn("half_life: 90s", printed)
        file.write_text(printed)
        self.assertEqual(printed, self.run_eplbd("--config", file, "--print-config"))

    def test_a_state_directory_is_one_daemons_and_one_deployments(self):
        daemon = self.daemon()
        elsewhere = {"control": {"socket": str(daemon.folder / "other.sock")}}
        held = self.run_eplbd("--config", self.write(daemon, **elsewhere), expect=HELD)
        self.assertIn("another eplbd holds", held)
        daemon.stop()
        foreign = self.write(daemon, deployment="other", **elsewhere)
        self.assertIn("is of deployment test", self.run_eplbd("--config", foreign, expect=CONFIG))
        daemon.start()

    def test_who_only_observed_may_be_told_another_deployment(self):
        """The service runs once it is installed; then somebody says whose it is, and of what shape."""
        daemon = self.daemon(mode="observe")
        eventually(lambda: daemon.metrics().by_label("decisions_total", "verdict"), "a decision")
        daemon.stop()
        daemon.config["deployment"] = "mine"
        daemon.config["topology"] = {**SHAPE, "gpus": SHAPE["gpus"] // 2}
        daemon.start()
        self.assertEqual(daemon.status["deployment"], "mine")

    def test_keys_that_cannot_be_read(self):
        daemon = self.daemon()
        file = self.write(daemon, security={"curve_secret_key": "/nonexistent"},
                          state={"directory": str(daemon.folder / "other")})
        self.assertIn("/nonexistent", self.run_eplbd("--config", file, expect=CONFIG))


if __name__ == "__main__":
    unittest.main()
