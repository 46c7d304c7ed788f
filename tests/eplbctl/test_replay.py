# SPDX-License-Identifier: Apache-2.0
"""replay and advise as a program: what they print and draw of a trace."""

import csv
import json
import re
import unittest

import numpy as np

from offline import FAILED, USAGE, Folder, run


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


if __name__ == "__main__":
    unittest.main()
