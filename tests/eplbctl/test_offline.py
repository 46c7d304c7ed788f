# SPDX-License-Identifier: Apache-2.0
"""solve, keygen and the command line as a program: what they print, and how they exit."""

import json
import os
import stat
import unittest
from pathlib import Path

import numpy as np

from offline import FAILED, USAGE, Folder, run


class Solve(Folder):
    def setUp(self):
        super().setUp()
        random = np.random.default_rng(1)
        self.loads = np.exp(random.normal(0, 1, (4, 32))).astype(np.float32) * 1000
        self.file = self.save("loads.npy", self.loads)
        self.shape = ("--gpus", 8, "--slots", 48, "--nodes", 2, "--groups", 4)

    def check(self, answer, width=None):
        table = np.array(answer["physical_to_logical_map"])
        lists = np.array(answer["logical_to_physical_map"])
        count = np.array(answer["logical_count"])
        self.assertEqual((4, 48), table.shape)
        self.assertEqual((4, 32, width or count.max()), lists.shape)
        for layer in range(4):
            np.testing.assert_array_equal(np.bincount(table[layer], minlength=32), count[layer])
            for expert in range(32):
                slots = lists[layer, expert]
                used = slots[slots >= 0]
                self.assertEqual(count[layer, expert], len(used))
                np.testing.assert_array_equal(slots[len(used):], -1)
                np.testing.assert_array_equal(table[layer][used], expert)
        load = np.take_along_axis(self.loads / count, table, 1).reshape(4, 8, 6).sum(2)
        imbalance = load.max(1) / load.mean(1)
        np.testing.assert_allclose(answer["imbalance_per_layer"], imbalance, rtol=1e-5)
        balancedness = load.mean(1).sum() / load.max(1).sum()
        self.assertAlmostEqual(answer["balancedness"], balancedness, places=5)
        self.assertGreater(answer["elapsed_seconds"], 0)
        return table, lists

    def test_every_policy_prints_maps_that_agree_with_each_other_and_with_the_score(self):
        for policy in ("deepseek", "evolved", "joint", "incremental"):
            with self.subTest(policy=policy):
                answer = json.loads(
                    run("solve", "--loads", self.file, *self.shape, "--policy", policy,
                        "--repeat", 3)
                )
                width = 48 - 32 + 1 if policy == "evolved" else None
                table, lists = self.check(answer, width)
                if policy in ("joint", "incremental"):
                    used = np.where(lists < 0, 1 << 30, lists)
                    self.assertTrue((np.diff(used, axis=2) >= 0).all(), "not in slot order")
                    gpus = np.sort(table.reshape(4, 8, 6), axis=2)
                    self.assertTrue((np.diff(gpus, axis=2) > 0).all(), "twice on a GPU")

    def test_moves_are_counted_from_the_placement_in_force(self):
        first = self.folder / "first.json"
        first.write_text(run("solve", "--loads", self.file, *self.shape))
        table = np.array(json.loads(first.read_text())["physical_to_logical_map"])
        for budget in (0, 5):
            answer = json.loads(
                run("solve", "--loads", self.file, *self.shape, "--policy", "incremental",
                    "--max-moves", budget)
            )
            new = np.array(answer["physical_to_logical_map"]).reshape(32, 6)
            old = np.tile(np.arange(48) % 32, (4, 1)).reshape(32, 6)
            moved = sum(len(set(b) - set(a)) for a, b in zip(old.tolist(), new.tolist()))
            self.assertEqual(moved, answer["moves"])
            if budget:
                self.assertLessEqual(moved, budget)
        again = json.loads(
            run("solve", "--loads", self.file, *self.shape, "--current", first)
        )
        old, new = table.reshape(32, 6), np.array(again["physical_to_logical_map"]).reshape(32, 6)
        for a, b in zip(old.tolist(), new.tolist()):
            for slot, expert in enumerate(a):
                if expert in b:
                    self.assertEqual(expert, b[slot], "an expert that stays keeps its slot")

    def test_the_bound_is_below_what_is_reached(self):
        answer = json.loads(run("solve", "--loads", self.file, *self.shape, "--bound"))
        self.assertLessEqual(1, answer["bound"])
        self.assertLessEqual(answer["bound"], 1 / answer["balancedness"] + 1e-9)
        for bound, layer in zip(answer["bound_per_layer"], answer["imbalance_per_layer"]):
            self.assertLessEqual(bound, layer + 1e-9)

    def test_steps_are_summed(self):
        steps = self.save("steps.npy", np.stack([self.loads, self.loads * 3]))
        total = self.save("total.npy", self.loads * 4)
        shape = ("--gpus", 8, "--slots", 48, "--policy", "deepseek")
        one = json.loads(run("solve", "--loads", steps, *shape))
        other = json.loads(run("solve", "--loads", total, *shape))
        self.assertEqual(one["physical_to_logical_map"], other["physical_to_logical_map"])

    def test_errors_say_what_is_wrong_and_exit_as_documented(self):
        cases = [
            (("solve", "--gpus", 8, "--slots", 48), USAGE, "--loads"),
            (("solve", "--loads", self.file, "--gpus", 7, "--slots", 48), USAGE, "multiple of"),
            (("solve", "--loads", self.file, "--gpus", 8, "--slots", 24), USAGE, "at least"),
            (("solve", "--loads", "/none", *self.shape), FAILED, "/none: No such file"),
            (("solve", "--loads", self.file, *self.shape, "--policy", "x"), USAGE, "deepseek"),
            (("solve", "--loads", self.file, *self.shape, "--gpu-speeds", "1,2"), USAGE,
             "gpu_speeds"),
            (("bogus",), USAGE, ""),
            ((), USAGE, ""),
        ]
        for arguments, code, words in cases:
            with self.subTest(arguments=arguments):
                self.assertIn(words, run(*arguments, expect=code))
        fortran = self.folder / "fortran.npy"
        np.save(fortran, np.asfortranarray(self.loads))
        self.assertIn("Fortran", run("solve", "--loads", fortran, *self.shape, expect=FAILED))
        run("--help")
        self.assertIn("eplbctl", run("--version"))


class CommandLine(unittest.TestCase):
    def test_a_wrong_one_says_what_is_right(self):
        for flags, words in (
            ((), ["a command is missing", "status, watch"]),
            (("stats",), ['no command "stats"; did you mean status?']),
            (("qqqqqq",), ['no command "qqqqqq"', "status, watch"]),
            (("keygen", "a", "b"), ['"b" is one word too many']),
            (("solve", "--load", "x"), ["no flag --load; did you mean --loads?"]),
            (("pause", "--fro", "2h"), ["no flag --fro; did you mean --for?"]),
            (("pause", "--qqqqqq", "2h"), ["no flag --qqqqqq\n"]),
            (("load", "--interval", "5d"), ["from 0.001s to 3600s"]),
            (("replay", "--trace", "x", "--timeline", "x.txt"), ["must end in .csv"]),
            (("record", "--to", "x.json"), ["must end in .npy"]),
            (("placement", "export", "--to", "x.txt"), [".txt", "--format"]),
            (("gpu", "remove"), ['eplbctl gpu: there is no command "remove"', "drain, restore"]),
            (("gpu", "drain", "x"), ["eplbctl gpu drain", 'from 0 on, is "x"']),
            (("load", "--sources", 0), ['from 1 to 4096, is "0"', "eplbctl load --help"]),
            (("pause", "--for", "2"), ["a duration with its unit", "2h", 'is "2"']),
            (("pause", "--for", "31d"), ["from 1ms to 30d"]),
            (("solve", "--loads", "x", "--gpus", 8, "--slots", "x"), ['from 1 on, is "x"']),
            (("keygen", ""), ["must name a file"]),
        ):
            told = run(*flags, expect=USAGE)
            for word in words:
                self.assertIn(word, told)


    def test_no_flag_is_ignored(self):
        for flags, words in (
            (("--config", "a", "--socket", "b", "status"), "--socket excludes --config"),
            (("--config", "a", "keygen", "b"), "keygen: takes no --config"),
            (("--socket", "a", "replay", "--trace", "b"), "replay: takes no --socket"),
            (("--config", "a", "replay", "--trace", "b", "--config", "c"), "given twice"),
            (("replay", "--trace", "a", "--timeline", "b", "--compare"), "--compare"),
            (("replay", "--trace", "a", "--policy", "joint", "--compare"), "--compare"),
            (("load", "--trace", "a", "--seed", 1), "--seed"),
            (("solve", "--loads", "a", "--gpus", 1, "--slots", 1, "--settle", 1.1), "--policy"),
            (("solve", "--loads", "a", "--gpus", 1, "--slots", 1, "--policy", "deepseek",
              "--search-seconds", 1), "--policy joint"),
            (("placement", "--layer", 1, "export", "--to", "a.npy"), "takes no --layer"),
            (("placement", "export", "--json", "--to", "a.npy"), "takes no --json"),
            (("placement", "--layer", 1, "--json"), "--layer"),
        ):
            with self.subTest(flags=flags):
                self.assertIn(words, run(*flags, expect=USAGE))


class Keygen(Folder):
    def test_a_pair_that_only_the_owner_reads_and_that_is_never_overwritten(self):
        name = self.folder / "worker"
        run("keygen", name, "--source", "dp0", "dp1")
        secret, public = Path(f"{name}.key"), Path(f"{name}.pub")
        self.assertEqual(0o600, stat.S_IMODE(os.stat(secret).st_mode))
        key, *role = public.read_text().splitlines()[-1].split()
        self.assertEqual((40, ["source", "dp0", "dp1"]), (len(key), role))
        import zmq

        self.assertEqual(
            key.encode(), zmq.curve_public(secret.read_text().splitlines()[-1].encode())
        )
        self.assertIn("remove it first", run("keygen", name, expect=FAILED))
        self.assertIn("--observer", run("keygen", f"{name}2", "--observer", "--source", "a",
                                        expect=USAGE))

    def test_a_pair_for_each_of_many_workers(self):
        name = self.folder / "dp"
        self.assertIn("dp11.pub", run("keygen", name, "--workers", 12))
        keys = set()
        for worker in range(12):
            key, *role = Path(f"{name}{worker}.pub").read_text().splitlines()[-1].split()
            self.assertEqual(["source", f"dp{worker}"], role)
            self.assertEqual(0o600, stat.S_IMODE(os.stat(f"{name}{worker}.key").st_mode))
            keys.add(key)
        self.assertEqual(12, len(keys))
        for file in self.folder.glob("dp[0-8]*"):
            file.unlink()
        self.assertIn("dp9.key", run("keygen", name, "--workers", 12, expect=FAILED))
        self.assertFalse(Path(f"{name}0.key").exists(), "all or none")
        run("keygen", name, "--workers", 2, "--observer", expect=USAGE)


if __name__ == "__main__":
    unittest.main()
