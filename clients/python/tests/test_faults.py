# SPDX-License-Identifier: Apache-2.0
"""What goes wrong in the middle of an update: a real eplbd, and a group of the stand-in for vLLM under
its adapter. scripts/engines --fault does the same to the released one."""

import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "engines"))

from ranks import EXPERTS, LAYERS, SLOTS
from run import Run, good
from stage import Shape
from vllm_like import GPUS


class Faults(unittest.TestCase):
    def play(self, fault):
        told = {"name": "vllm_like", "version": "0.33.0", "mode": "async", "files": "", "seed": 1,
                "extra": [], "fault": fault, "updates": 2, "seconds": 90}
        run = Run(told, Shape(LAYERS, EXPERTS, SLOTS, GPUS))
        self.addCleanup(run.close)
        figures = run.result()
        self.assertTrue(good(told, figures), figures)
        self.assertEqual(figures["mixed_steps"], 0, figures)

    def test_the_daemon_is_killed_and_another_takes_its_place(self):
        self.play("daemon-killed")

    def test_a_placement_is_superseded_before_it_is_applied(self):
        self.play("superseded")

    def test_a_rank_dies(self):
        self.play("rank-dies")


if __name__ == "__main__":
    unittest.main()
