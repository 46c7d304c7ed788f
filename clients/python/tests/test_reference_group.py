# SPDX-License-Identifier: Apache-2.0
"""A short life of the reference group against the built daemon; the full one is a command of its own."""

import importlib.util
import os
import subprocess
import sys
import unittest
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[1] / "examples" / "run_reference_group.py"


@unittest.skipUnless(importlib.util.find_spec("torch"), "python3-torch is not installed")
@unittest.skipUnless(os.environ.get("EPLBD"), "no eplbd: set EPLBD to the built program")
class ReferenceGroup(unittest.TestCase):
    def test_fifteen_updates_with_everything_that_goes_wrong(self):
        command = [sys.executable, str(SCRIPT), "--updates", "15", "--daemon-kills", "2",
                   "--failures", "2", "--group-restarts", "1"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=240)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertIn("15 updates", done.stdout)
        print("\n" + done.stdout)


if __name__ == "__main__":
    unittest.main()
