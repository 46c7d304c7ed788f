# SPDX-License-Identifier: Apache-2.0
"""solve, replay and keygen as a program: what they print, and how they exit."""

import csv
import json
import os
import re
import stat
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


class Replay(Folder):
    KEYS = {
        "steps", "layers", "balancedness", "static_balancedness", "moves", "updates",
        "layers_changed", "max_moves_per_gpu", "decide_seconds_total", "decide_seconds_p99",
    }

    def setUp(self):
        super().setUp()
        random = np.random.default_rng(2)
        early, late = np.exp(random.normal(0, 1, (2, 1, 4, 32)))
        shares = np.where(np.arange(80)[:, None, None] < 40, early, late)
        self.trace = random.poisson(shares * 2000).astype(np.uint32)
        self.file = self.save("trace.npy", self.trace)
        rules = self.folder / "rules.yaml"
        rules.write_text(
            "trigger: {imbalance: 1.05, settle: 1.03, cooldown: 1s, min_tokens: 0, "
            "min_tokens_per_gpu_step: 0, min_gain: 0.003}\nlimits: {updates_per_hour: 0}\n"
        )
        self.flags = ("replay", "--trace", self.file, "--gpus", 8, "--slots", 48,
                      "--config", rules)

    def test_the_static_score_is_that_of_the_initial_placement_and_ours_is_better(self):
        answer = json.loads(run(*self.flags))
        self.assertLessEqual(self.KEYS, set(answer))
        self.assertEqual((80, 4), (answer["steps"], answer["layers"]))
        table = np.arange(48) % 32
        count = np.bincount(table)
        load = (self.trace / count)[:, :, table].reshape(80, 4, 8, 6).sum(3)
        static = load.mean(2).sum() / load.max(2).sum()
        self.assertAlmostEqual(static, answer["static_balancedness"], places=9)
        self.assertGreater(answer["balancedness"], static + 0.1)
        self.assertGreaterEqual(answer["updates"], 2)

    def test_the_timeline_tells_every_step_and_adds_up(self):
        timeline = self.folder / "timeline.csv"
        answer = json.loads(run(*self.flags, "--timeline", timeline, "--apply-seconds", 3))
        rows = list(csv.DictReader(timeline.read_text().splitlines()))
        self.assertEqual(80, len(rows))
        self.assertEqual(answer["moves"], sum(int(row["moves"]) for row in rows))
        updates = [int(row["step"]) for row in rows if row["verdict"] == "update"]
        self.assertEqual(answer["updates"], len(updates))
        self.assertTrue(all(b - a >= 3 for a, b in zip(updates, updates[1:])))
        # Decided at the end of a step, it serves three steps later.
        first = updates[0]
        versions = [int(row["version"]) for row in rows]
        self.assertEqual([0] * 3, versions[first + 1 : first + 4])
        self.assertEqual(1, versions[first + 4])

    def test_compare_runs_several(self):
        rows = json.loads(run(*self.flags, "--compare", "deepseek", "incremental", "--json"))
        self.assertEqual(["deepseek", "incremental"], [row["name"] for row in rows])
        table = run(*self.flags, "--compare")
        for name in ("static", "deepseek", "evolved", "joint", "incremental"):
            self.assertIn(f"\n{name}", table)

    def test_flags_win_over_the_configuration(self):
        for policy in ("deepseek", "evolved", "joint", "incremental"):
            answer = json.loads(run(*self.flags, "--policy", policy))
            row, = json.loads(run(*self.flags, "--compare", policy, "--json"))
            self.assertEqual(policy, answer["policy"])
            self.assertEqual((row["balancedness"], row["moves"]),
                             (answer["balancedness"], answer["moves"]))
        hierarchical = ("--nodes", 2, "--groups", 4, "--policy", "joint", "--hierarchical")
        self.assertNotEqual(json.loads(run(*self.flags, *hierarchical, "true"))["balancedness"],
                            json.loads(run(*self.flags, *hierarchical, "false"))["balancedness"])

    def test_what_cannot_be_replayed_is_told_with_its_place(self):
        self.trace = self.trace * 0.0001
        file = self.save("shares.npy", self.trace)
        self.assertIn(f"{file}: step 0: its loads are fractions",
                      run("replay", "--trace", file, "--gpus", 8, "--slots", 48, expect=FAILED))

    def test_the_shape_is_the_configurations_without_flags(self):
        config = self.folder / "eplbd.yaml"
        config.write_text("topology: {layers: 4, logical_experts: 32, slots: 48, gpus: 8}\n"
                          "trigger: {cooldown: 1s}\n")
        flags = ("replay", "--trace", self.file, "--config", config)
        answer = json.loads(run(*flags))
        self.assertEqual((48, 8), (answer["slots"], answer["gpus"]))
        self.assertEqual(40, json.loads(run(*flags, "--gpus", 8, "--slots", 40))["slots"])
        self.assertIn("--slots", run(*flags, "--gpus", 8, expect=USAGE))
        config.write_text("topology: {layers: 5, logical_experts: 32, slots: 48, gpus: 8}\n")
        self.assertIn("5 of 32", run(*flags, expect=USAGE))
        config.write_text("mode: shadow\n")
        self.assertIn("--gpus and --slots", run(*flags, expect=USAGE))

    def test_an_engines_way_is_what_its_words_say(self):
        row, = json.loads(run(*self.flags, "--compare", "engine:vllm,interval=20,window=10",
                              "--json"))
        self.assertEqual(("vllm", 20, 10), (row["engine"], row["interval"], row["window"]))
        self.assertLess(0, row["updates"])
        self.assertLessEqual(row["updates"], 4)  # of 80 steps
        table = np.arange(48) % 32
        served = np.zeros(2)
        for step, counts in enumerate(self.trace):
            load = (counts / np.apply_along_axis(np.bincount, -1, np.atleast_2d(table),
                                                 minlength=32))
            load = np.take_along_axis(load, np.broadcast_to(table, (4, 48)), 1)
            load = load.reshape(4, 8, 6).sum(2)
            served += load.mean(1).sum(), load.max(1).sum()
            if step % 20 == 4:  # the first one after a quarter of the interval
                recent = self.save("recent.npy", self.trace[max(0, step - 9) : step + 1])
                table = np.array(json.loads(
                    run("solve", "--loads", recent, "--gpus", 8, "--slots", 48, "--policy",
                        "deepseek"))["physical_to_logical_map"])
        # Slots of a GPU may be in another order; GPU loads are the same.
        self.assertAlmostEqual(served[0] / served[1], row["balancedness"], places=9)
        for item, words in (("deepsek", "did you mean deepseek?"), ("engine:vlm", "vllm"),
                            ("engine:vllm,interval=0", "from 1"), ("rules.txt", "is no policy")):
            self.assertIn(words, run(*self.flags, "--compare", item, expect=USAGE))

    def test_it_ends_with_a_sentence_and_prices_moves(self):
        price = ("--expert-bytes", "40MB", "--bandwidth", "20GB/s")
        answer = json.loads(run(*self.flags, *price))
        self.assertEqual("summary", list(answer)[-1])
        saved = 1 - answer["static_balancedness"] / answer["balancedness"]
        self.assertAlmostEqual(saved, answer["saved"], places=9)
        self.assertIn(f"{saved * 100:.1f} %", answer["summary"])
        timeline = self.folder / "timeline.csv"
        run(*self.flags, "--timeline", timeline)
        rows = csv.DictReader(timeline.read_text().splitlines())
        seconds = sum(int(row["worst_gpu_moves"]) for row in rows) * 40e6 / 20e9
        self.assertAlmostEqual(seconds, answer["transfer_seconds"], places=9)
        self.assertAlmostEqual(saved - seconds / 80, answer["saved_net"], places=9)
        table = run(*self.flags, *price, "--compare", "incremental", "engine:vllm,interval=20")
        self.assertIn(" net)", table.splitlines()[-1])
        self.assertIn("rebuilding every 20 steps as vLLM does", table.splitlines()[-1])
        self.assertIn("needs", run(*self.flags, *price[:2], expect=USAGE).replace("requires", "needs"))
        self.assertIn("44M", run(*self.flags, "--bandwidth", "x", *price[:2], expect=USAGE))

    def test_the_report_is_one_page_that_loads_nothing(self):
        page = self.folder / "report.html"
        answer = json.loads(run(*self.flags, "--report", page))
        text = page.read_text()
        self.assertIn(answer["summary"].rstrip(".").replace("'", "&#39;"), text)
        self.assertNotIn("http://", text.replace("http://www.w3.org/2000/svg", ""))
        for loads in ("https://", "src=", "url(", "<script"):
            self.assertNotIn(loads, text)
        from xml.etree import ElementTree

        pictures = re.findall(r"<svg.*?</svg>", text, re.S)
        self.assertEqual(3, len(pictures))
        for picture in pictures:
            ElementTree.fromstring(picture)
        self.assertIn("must end in .html", run(*self.flags, "--report", "x.pdf", expect=USAGE))

    def test_durations_have_units_and_flags_may_stand_before_the_command(self):
        rules = self.flags[-1]
        plain = json.loads(run(*self.flags, "--apply-seconds", 3, "--step-seconds", 2))
        units = json.loads(run("--config", rules, *self.flags[:-2], "--apply-seconds", "3000ms",
                               "--step-seconds", "2s"))
        for key in ("balancedness", "moves", "updates", "apply_seconds", "step_seconds"):
            self.assertEqual(plain[key], units[key], key)

    def test_a_bad_configuration_is_told_with_its_line(self):
        bad = self.folder / "bad.yaml"
        bad.write_text("trigger:\n  imbalance: 0.5\n")
        self.assertIn(f"{bad}:2: trigger.imbalance",
                      run(*self.flags[:-1], bad, expect=FAILED))


class Advise(Folder):
    def setUp(self):
        super().setUp()
        random = np.random.default_rng(3)
        shares = np.exp(random.normal(0, 1.2, (3, 32)))
        self.file = self.save("trace.npy", random.poisson(
            np.broadcast_to(shares, (20, 3, 32)) * 2000).astype(np.uint32))
        self.flags = ("advise", "--trace", self.file, "--gpus", 8)

    def test_every_number_of_slots_is_what_replay_says_of_it(self):
        answer = json.loads(run(*self.flags, "--slots", "64,40,32", "--json", "--expert-bytes",
                                "1MiB"))
        self.assertEqual([32, 40, 64], [row["slots"] for row in answer["sweep"]])
        for row in answer["sweep"]:
            replayed = json.loads(run("replay", "--trace", self.file, "--gpus", 8, "--slots",
                                      row["slots"]))
            for key in ("balancedness", "static_balancedness", "moves", "updates"):
                self.assertEqual(replayed[key], row[key], key)
            self.assertEqual(row["slots"] / 32, row["memory_ratio"])
            self.assertEqual(row["slots"] / 8 * 3 * 2**20, row["memory_bytes_per_gpu"])
        self.assertIn(answer["knee"], (32, 40, 64))
        self.assertIn(f"{answer['knee']} slots are the knee", answer["summary"])

    def test_a_table_and_a_picture(self):
        picture = self.folder / "slots.svg"
        table = run(*self.flags, "--picture", picture)
        self.assertEqual(1, table.count("<- knee"))
        self.assertIn("are the knee", table.splitlines()[-1])
        from xml.etree import ElementTree

        ElementTree.parse(picture)
        self.assertIn("multiple of", run(*self.flags, "--slots", "33", expect=USAGE))
        self.assertIn("must end in .svg", run(*self.flags, "--picture", "x.png", expect=USAGE))


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
