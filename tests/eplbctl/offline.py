# SPDX-License-Identifier: Apache-2.0
"""eplbctl as a program, with files in a folder of the test's own."""

import subprocess
import tempfile
import unittest
from pathlib import Path

import numpy as np

from harness import program

FAILED, USAGE = 1, 2


def run(*arguments, expect=0):
    result = subprocess.run(
        [program("eplbctl"), *map(str, arguments)], capture_output=True, text=True, timeout=240
    )
    if result.returncode != expect:
        raise AssertionError(f"exit {result.returncode}: {result.stdout}{result.stderr}")
    return result.stdout if expect == 0 else result.stderr


class Folder(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def save(self, name, array):
        path = self.folder / name
        np.save(path, array)
        return path
