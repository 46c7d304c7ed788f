"""Files of loads and placements: every kind, read alike by the package and by eplbctl.

SPDX-License-Identifier: Apache-2.0
"""

import gzip
import io
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest
import zipfile

import numpy as np

import eplbd

try:
    import torch
except ImportError:
    torch = None
try:
    import yaml
except ImportError:
    yaml = None

LOADS = np.random.default_rng(1).integers(0, 1000, (3, 2, 8))
MAP = np.array([[3, 1, 2, 0, 4, 5, 6, 7, 0, 1], [7, 6, 5, 4, 3, 2, 1, 0, 4, 2]])


def npy(array):
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def npz(save=np.savez, **arrays):
    out = io.BytesIO()
    save(out, **arrays)
    return out.getvalue()


def archive(name, content):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as written:
        written.writestr(name, content)
    return out.getvalue()


def pt(value, **options):
    out = io.BytesIO()
    torch.save(value, out, **options)
    return out.getvalue()


def lines(rows, separator=",", heading=None):
    head = [separator.join(heading)] if heading else []
    return "\n".join(head + [separator.join(map(str, row)) for row in rows])


def step_rows(layer_ids=(0, 1), steps=(0, 1, 2)):
    return [[steps[s], layer_ids[i], *LOADS[s, i]] for s in range(3) for i in range(2)]


def cell_rows():
    """Not those that are 0, and not in order."""
    cells = [[s, i, e, LOADS[s, i, e]] for s in range(3) for i in range(2) for e in range(8)]
    return [cell for cell in cells[::-1] if cell[3] or cell[2] == 7]


WIDE = ["step", "layer", *(f"e{i}" for i in range(8))]
GOOD = {
    "npy": npy(LOADS), "npz": npz(loads=LOADS), "packed npz": npz(np.savez_compressed, anything=LOADS),
    "npz of several": npz(other=MAP, counts=LOADS), "gzip": gzip.compress(npy(LOADS)),
    "gzip in two parts": gzip.compress(npy(LOADS)[:100]) + gzip.compress(npy(LOADS)[100:]),
    "gzip of npz": gzip.compress(npz(counts=LOADS)), "list": json.dumps(LOADS.tolist()),
    "SGLang": json.dumps({"logical_count": LOADS.tolist()}),
    "ADRS": json.dumps({"load_history": [{"logical_expert_load": step} for step in LOADS.tolist()]}),
    "lines": "\n".join(json.dumps(step) for step in LOADS.tolist()),
    "lines of objects": "\n\n".join(json.dumps({"logical_count": step}) for step in LOADS.tolist()) + "\n",
    "table": lines(step_rows(), heading=WIDE), "table, gzip": gzip.compress(lines(step_rows(), heading=WIDE).encode()),
    "table, the model's layers": lines(step_rows((3, 7), (100, 200, 300)), "\t", ["Step", "Layer_id", *WIDE[2:]]),
    "table without layers": lines([[r[0], *r[2:]] for r in step_rows()], ";", ["step", *WIDE[2:]]),
    "cells": lines(cell_rows(), heading=["step", "layer", "expert", "tokens"]),
    "cells, Windows": "\ufeff" + lines(cell_rows(), heading=["step", "layer", "expert", '"tokens"']).replace("\n", "\r\n"),
}
ONE = {
    "no heading": lines(LOADS[0]), "blanks": "# numpy.savetxt\n" + lines(LOADS[0], " "),
    "experts' names": lines(LOADS[0], heading=WIDE[2:]), "exponents": lines(LOADS[0] * 1.0).replace(".0", ".0e0"),
}
BAD = {  # what the message says beside the file's name
    "empty": (b"", "empty"), "blank": (b" \n\n", "empty"), "empty gzip": (gzip.compress(b""), "empty"),
    "cut gzip": (gzip.compress(npy(LOADS))[:-30], "truncated|ended before"),
    "cut npz": (npz(counts=LOADS)[:-30], "truncated"),
    "two arrays": (npz(a=LOADS, b=LOADS), "a, b"), "zip": (archive("letter.txt", "dear"), "no array"),
    "Parquet": (b"PAR1....", "Parquet"), "HDF5": (b"\x89HDF....", "HDF5"), "zstd": (b"\x28\xb5\x2f\xfd..", "zstd"),
    "binary": (b"ab\0cd", "binary"), "prose": (b"dear reader: this is a letter", "neither JSON"),
    "online": (b"num_slots: 288\nlayer_updates_per_iter: 2\n", "neither JSON"),
    "ragged": (b"1,2\n3\n", "line 2"), "word": (b"1,2\n3,x\n", "line 2: column 2"), "heading": (b"a,b\n", "nothing below"),
    "twice": (b"layer,a,b\n0,1,2\n0,1,2\n", "line 3: the second"), "hole": (b"step,layer,a\n0,0,1\n0,1,1\n1,0,1\n", "step 1 has no layer 1"),
    "two values": (b"layer,expert,a,b\n0,1,2,3\n", "column expert"), "half an expert": (b"layer,expert,a\n0,0.5,3\n", "line 2: an expert"),
    "far expert": (b"layer,expert,a\n0,9999999,3\n", "line 2: an expert"), "empty space": (b"layer,expert,a\n0,0,3\n1,99999,3\n", "far more cells"), "negative": (b"1,2\n3,-4\n", "layer 1, expert 1"),
    "no number": (b"1,2\n3,nan\n", "line 2"), "no JSON": (b"{\"a\": ", "JSON"), "half JSON Lines": (b"[[1,2]]\n[[1,\n", "line 2"),
    "other shapes": (b"[[1,2]]\n[[1]]\n", "another shape|one length"), "a placement": (json.dumps({"physical_to_logical_map": MAP.tolist()}).encode(), "placement"),
    "one dimension": (npy(LOADS[0, 0]), "dimension|shape"),
}


class Kinds(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.file = pathlib.Path(folder.name) / "file"

    def write(self, content):
        self.file.write_bytes(content if isinstance(content, bytes) else content.encode())

    def solved(self, *flags):
        command = [os.environ["EPLBCTL"], "solve", "--loads", str(self.file), "--gpus", "2", "--slots", "10", *flags]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    def check_loads(self, wanted):
        read = eplbd.read_trace(self.file)
        np.testing.assert_array_equal(read, wanted)
        by_eplbctl = self.solved("--policy", "deepseek")
        self.assertEqual(by_eplbctl.returncode, 0, by_eplbctl.stderr)
        maps = json.loads(by_eplbctl.stdout)["physical_to_logical_map"]
        ours = eplbd.rebalance_experts(read.sum(0), 10, 1, 1, 2, policy="deepseek")[0]
        np.testing.assert_array_equal(maps, ours)

    def test_every_kind_of_a_trace_is_read_alike(self):
        for name, content in GOOD.items():
            with self.subTest(name):
                self.write(content)
                self.check_loads(LOADS)

    def test_a_load_without_steps_is_one_step(self):
        for name, content in ONE.items():
            with self.subTest(name):
                self.write(content)
                self.check_loads(LOADS[:1])

    def test_what_cannot_be_read_is_named_by_both(self):
        for name, (content, words) in BAD.items():
            with self.subTest(name):
                self.write(content)
                with self.assertRaisesRegex(ValueError, f"^{re.escape(str(self.file))}: .*({words})"):
                    eplbd.read_trace(self.file)
                by_eplbctl = self.solved()
                self.assertEqual(by_eplbctl.returncode, 1)
                self.assertRegex(by_eplbctl.stderr, f"{re.escape(str(self.file))}: .*({words})")

    def test_a_file_cut_anywhere_is_an_error(self):
        for content in (gzip.compress(npy(LOADS[0])), npz(np.savez_compressed, counts=LOADS[0])):
            for length in range(1, len(content), 7):
                self.write(content[:length])
                with self.assertRaises(ValueError):
                    eplbd.read_trace(self.file)
        with self.assertRaises(FileNotFoundError):
            eplbd.read_trace(self.file.with_name("none"))

    @unittest.skipIf(torch is None, "no torch")
    def test_dumps_of_sglang_are_read_and_converted_in_one_command(self):
        tensor = torch.tensor(LOADS)
        physical = np.zeros((2, 10), np.int64)
        physical[:] = LOADS[0][np.arange(2)[:, None], MAP]
        once = np.zeros_like(LOADS[0])
        for layer in range(2):
            np.add.at(once[layer], MAP[layer], physical[layer])
        record = {"forward_pass_id": 4, "rank": 0, "global_physical_count": torch.tensor(physical)}
        for wanted, dump in (
            (LOADS, pt({"rank": 0, "logical_count": tensor, "average_utilization_rate_over_window": None})),
            (LOADS, pt(tensor, _use_new_zipfile_serialization=False)),
            (once[None], pt({"records": [record], "last_physical_to_logical_map": torch.tensor(MAP)})),
        ):
            self.write(dump)
            np.testing.assert_array_equal(eplbd.read_trace(self.file), wanted)
            refused = self.solved()
            self.assertEqual(refused.returncode, 1)
            self.assertIn("python3 -m eplbd convert", refused.stderr)
            out = self.file.with_suffix(".npy")
            convert = [sys.executable, "-m", "eplbd", "convert", str(self.file), str(out)]
            subprocess.run(convert, check=True, stdout=subprocess.DEVNULL)
            np.testing.assert_array_equal(np.load(out), wanted)
        self.write(pt({"weights": tensor}))
        with self.assertRaisesRegex(ValueError, "weights"):
            eplbd.read_trace(self.file)

    def test_placements(self):
        trtllm = f"num_slots: 10\ninitial_global_assignments:\n  3: {MAP[0].tolist()}\n  5: {MAP[1].tolist()}\n"
        every_layer = np.stack([MAP[0], MAP[0], MAP[0], MAP[0], MAP[1], MAP[1]])
        ascend = {"moe_layer_count": 2, "layer_list": [
            {"layer_id": i, "device_count": 2, "device_list": [
                {"device_id": d, "device_expert": MAP[i, 5 * d : 5 * d + 5].tolist()} for d in range(2)]}
            for i in range(2)]}
        kinds = {
            "npy": npy(MAP), "npz": npz(physical_to_logical_map=MAP), "table": lines(MAP), "list": json.dumps(MAP.tolist()),
            "SGLang": gzip.compress(json.dumps({"physical_to_logical_map": MAP.tolist()}).encode()),
            "every layer": json.dumps({"physical_to_logical_map": every_layer.tolist()}), "vllm-ascend": json.dumps(ascend),
        }
        if yaml:
            kinds["TensorRT-LLM"] = trtllm
        for name, content in kinds.items():
            with self.subTest(name):
                self.write(content)
                read = eplbd.read_placement(self.file, layer_ids=[3, 5])
                np.testing.assert_array_equal(read, MAP)
        self.write("num_slots: 288\nlayer_updates_per_iter: 2\n")
        if yaml:
            with self.assertRaisesRegex(ValueError, "online configuration of TensorRT-LLM"):
                eplbd.read_placement(self.file)
        for content, words in ((npy(LOADS), "no placement"), (b"{}", "neither physical_to_logical_map"),
                               (npy(MAP + 0.5), "no placement"), (b"[[1, 2], [3]]", "one length")):
            self.write(content)
            with self.assertRaisesRegex(ValueError, words):
                eplbd.read_placement(self.file)


if __name__ == "__main__":
    unittest.main()
