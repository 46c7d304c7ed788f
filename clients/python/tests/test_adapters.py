# SPDX-License-Identifier: Apache-2.0
"""The files that engines start from, and when adapters act at all."""

import io
import json
import logging
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import numpy as np
import zmq

from eplbd_client import Placement, PlacementId
from eplbd_client.adapters import (
    Settings,
    files,
    log_with,
    logger,
    missing_name,
    release_of,
    source_name,
)

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
                                           "EPLBD_OBSERVE": "true", "EPLBD_FALLBACK": "90s"})
        self.assertEqual(found.placements, ("tcp://a:1", "tcp://b:2"))
        self.assertTrue(found.observe)
        self.assertEqual((found.fallback_seconds, found.stuck_seconds), (90, 60))

    def test_what_is_not_understood(self):
        for changes in ({"EPLBD_FALLBACK": "90"}, {"EPLBD_STUCK": "-1s"}, {"EPLBD_STUCK": "0s"},
                        {"EPLBD_FALLBACK": "31000h"}, {"EPLBD_SECRET_KEY": "a"},
                        {"EPLBD_SERVER_KEY": "b"}):
            with self.subTest(changes), self.assertRaisesRegex(ValueError, "EPLBD_"):
                Settings.from_environment({"EPLBD_DEPLOYMENT": "d", **changes})

    def test_each_rank_has_a_name_and_may_have_a_key(self):
        self.assertEqual(source_name(3), "dp3")
        with tempfile.TemporaryDirectory() as folder:
            public, secret = zmq.curve_keypair()
            Path(folder, "dp3.key").write_bytes(secret + b"\n")
            Path(folder, "server.pub").write_bytes(public + b"\n")
            settings = Settings.from_environment({
                "EPLBD_DEPLOYMENT": "d", "EPLBD_SECRET_KEY": f"{folder}/dp{{rank}}.key",
                "EPLBD_SERVER_KEY": f"{folder}/server.pub"})
            self.assertEqual(settings.curve(3).public, public.decode())
            with self.assertRaises(OSError):
                settings.curve(0)


class Log(unittest.TestCase):
    def test_goes_where_the_engine_s_own_goes(self):
        for configured in (True, False):
            with self.subTest(configured), mock.patch.multiple(logger, handlers=[], propagate=True, level=0):
                engine, text = logging.getLogger("an engine"), io.StringIO()
                engine.handlers = [logging.StreamHandler(text)] if configured else []
                engine.setLevel(logging.INFO)
                engine.propagate = False
                log_with("an engine")
                logger.manager._clear_cache()
                logger.info("a line")
                self.assertEqual(text.getvalue(), "a line\n" if configured else "")
                self.assertEqual(logger.propagate, not configured)
        logger.manager._clear_cache()


class Releases(unittest.TestCase):
    def test_a_version_belongs_to_one_release(self):
        for version in ("0.28.0", "0.28.1", "0.28", "0.28.0rc1", "0.28.1+cu130"):
            self.assertEqual(release_of(version, ("0.27", "0.28")), "0.28")
        for version in ("0.280.1", "0.2", "1.28.0", "", "10.28.0"):
            self.assertIsNone(release_of(version, ("0.28",)))

    def test_a_name_that_is_not_there_is_told(self):
        names = ("decoder:JSONDecoder.decode(s)", "decoder:JSONDecoder()", "scanner:py_make_scanner()")
        self.assertEqual(missing_name("json", names), "")
        for name, told in (("nowhere:A()", "nowhere"), ("decoder:JSONDecoder.encode()", "encode"),
                           ("decoder:JSONDecoder.decode(s, other)", "has no other")):
            self.assertIn(told, missing_name("json", (*names, name)))


if __name__ == "__main__":
    unittest.main()
