# SPDX-License-Identifier: Apache-2.0
"""The files that engines start from, and when adapters act at all."""

import json
import logging
import unittest

import numpy as np

from eplbd_client import Placement, PlacementId
from eplbd_client.adapters import Settings, files, is_checked

RANKS = 4
INITIAL = Placement.initial(3, 8, 12, RANKS)
NEXT = np.roll(INITIAL.physical_to_logical, 3, axis=1)


class DensePrefix(unittest.TestCase):
    """A model of seven layers of which 3, 4 and 6 are MoE: three dense ones first, one between."""

    ids = [3, 4, 6]
    table = Placement(PlacementId(1, 1), np.stack([np.roll(NEXT[0], i) for i in range(3)]), 8, RANKS)

    def test_sglang_has_a_row_for_every_layer(self):
        rows = json.loads(files.sglang(self.table, self.ids, 7))["physical_to_logical_map"]
        self.assertEqual(len(rows), 7)
        for i, layer in enumerate(self.ids):
            self.assertEqual(rows[layer], self.table.physical_to_logical[i].tolist())
        for dense in (0, 1, 2, 5):
            self.assertEqual(rows[dense], INITIAL.physical_to_logical[0].tolist())

    def test_counts_come_back_without_them(self):
        counts = np.arange(7)[:, None] * np.ones((1, 8), int)
        self.assertEqual(files.moe_layers(counts, self.ids)[:, 0].tolist(), [3, 4, 6])
        with self.assertRaises(ValueError):
            files.moe_layers(counts[:3], self.ids)

    def test_tensorrt_llm_names_the_models_layers(self):
        text = files.tensorrt_llm(self.table, self.ids)
        self.assertIn("num_slots: 12\n", text)
        keys = [line.split(":")[0].strip() for line in text.splitlines() if line.startswith("  ")]
        self.assertEqual(keys, ["3", "4", "6"])
        self.assertIn(f"  6: {self.table.physical_to_logical[2].tolist()}\n", text)

    def test_vllm_ascend_counts_moe_layers(self):
        found = json.loads(files.vllm_ascend(self.table))
        self.assertEqual(found["moe_layer_count"], 3)
        self.assertEqual([layer["layer_id"] for layer in found["layer_list"]], [0, 1, 2])
        devices = found["layer_list"][1]["device_list"]
        self.assertEqual([device["device_id"] for device in devices], [0, 1, 2, 3])
        joined = [expert for device in devices for expert in device["device_expert"]]
        self.assertEqual(joined, self.table.physical_to_logical[1].tolist())

    def test_what_cannot_be_said(self):
        empty = np.array(NEXT)
        empty[:, :3] = -1
        down = Placement(PlacementId(1, 1), empty, 8, RANKS)
        for attempt in (lambda: files.sglang(down, self.ids), lambda: files.vllm_ascend(down),
                        lambda: files.tensorrt_llm(self.table, [0, 1]),
                        lambda: files.tensorrt_llm(self.table, [4, 3, 6])):
            with self.assertRaises(ValueError):
                attempt()


class Environment(unittest.TestCase):
    def test_nothing_without_a_deployment_and_nothing_under_the_kill_switch(self):
        self.assertIsNone(Settings.from_environment({}))
        on = {"EPLBD_DEPLOYMENT": "d"}
        self.assertEqual(Settings.from_environment(on).counts, ("tcp://127.0.0.1:15557",))
        self.assertIsNone(Settings.from_environment({**on, "EPLBD_KILL_SWITCH": "1"}))
        found = Settings.from_environment({**on, "EPLBD_PLACEMENTS": "tcp://a:1,tcp://b:2",
                                           "EPLBD_OBSERVE": "true"})
        self.assertEqual(found.placements, ("tcp://a:1", "tcp://b:2"))
        self.assertTrue(found.observe)

    def test_versions(self):
        logging.getLogger("eplbd_client").setLevel(logging.CRITICAL)
        self.assertTrue(is_checked("0.18.1", ("0.18",), "x"))
        for version in ("0.180.1", "0.1", "1.18.0", ""):
            self.assertFalse(is_checked(version, ("0.18",), "x"))


if __name__ == "__main__":
    unittest.main()
