# SPDX-License-Identifier: Apache-2.0
"""Recorded traces through real sockets, ten steps a second: bench/end_to_end.py, checked."""

import os
import re
import subprocess
import sys
import unittest
from pathlib import Path

import numpy as np

from harness import ROOT

FOLDER = os.environ.get("EPLBD_TRACES", "")


@unittest.skipUnless(FOLDER, "EPLBD_TRACES names no folder of recorded traces")
class Traces(unittest.TestCase):
    def test_each(self):
        found = 0
        for path in sorted(Path(FOLDER).glob("**/*.npy")):
            shape = np.load(path, mmap_mode="r").shape
            if len(shape) != 3:
                continue  # totals, not steps
            found += 1
            gpus = 8
            slots = -(-shape[2] * 5 // 4 // gpus) * gpus
            with self.subTest(path.name):
                command = [sys.executable, str(ROOT / "bench" / "end_to_end.py"), "--trace", str(path),
                           "--slots", str(slots), "--gpus", str(gpus), "--steps", "150"]
                done = subprocess.run(command, capture_output=True, text=True, timeout=120)
                print("\n" + done.stdout)
                self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
                self.assertIn("| lost, rejected, tokens missing | 0, 0, 0 |", done.stdout)
                rss = float(re.search(r"peak RSS \| ([\d.]+) MiB", done.stdout)[1])
                self.assertLessEqual(rss, 48)
        if not found:
            self.skipTest(f"{FOLDER} holds no [steps, layers, experts]")


if __name__ == "__main__":
    unittest.main()
