# SPDX-License-Identifier: Apache-2.0
"""vLLM's adapter against a stand-in; scripts/engines runs it against vLLM's own files."""

import sys
import tempfile
import time
import types
import unittest
from pathlib import Path

import numpy as np
import zmq

import vllm_like
from ranks import EXPERTS, LAYERS, SLOTS, RanksTest, Told, dist, initial, same_on_all, tell_the_rest, torch
from vllm_like import GPUS, OwnPolicy

from eplbd_client.adapters import Settings, vllm

VERSION = "0.33.0"
# The middle layer stays.
NEXT = np.array(initial(GPUS).physical_to_logical)
NEXT[[0, 2]] = np.roll(NEXT[[0, 2]], 4, axis=1)
BOTH = ({}, {"is_async": True})


def run(rank, gpus, settings, keys):
    """Rank 0 of the world is another pipeline stage's: this stage has ranks of its own."""
    stage, ours, worker = (dist.new_group(list(range(1, gpus + 1))) for _ in range(3))
    vllm.own_group = lambda group: ours  # torch before 2.1 makes one with the whole world only
    if rank == 0:
        return {}
    rank -= 1
    version, steps = keys.pop("version", VERSION), keys.pop("steps", 4000)
    until, grows_at = keys.pop("until", None), keys.pop("grows_at", 0)
    told = Told()
    state_class = vllm_like.install(stage, rocm=bool(keys.get("keeps")))
    for name in keys.pop("lacks", ()):
        delattr(sys.modules["vllm.distributed.eplb.async_worker"], name)
    vllm.patch(settings, version)
    engine = state_class(rank, (stage, worker), **keys)
    model = engine.model
    engine.step(is_profile=True)
    counted = np.zeros((LAYERS, EXPERTS), np.int64)
    seen, mixed, link, ends_in = [], False, None, 0
    for step in range(steps):
        if grows_at and step == grows_at:
            engine.reshape(SLOTS + GPUS)
        table = model.physical_to_logical_map.numpy().copy()
        mine = engine.mine(torch.from_numpy(table)).numpy()
        assert np.array_equal(model.model.expert_weights.numpy(), mine)
        mixed |= not same_on_all(int(np.dot(table.ravel(), np.arange(table.size))), stage)
        if not seen or not np.array_equal(seen[-1], table):
            seen.append(table)
        dummy = step % 7 == 3
        if engine.should_record_tensor:
            got = np.zeros(table.shape, np.int32)
            got[:, step % SLOTS] = 1000 if dummy else rank + 1
            model.expert_load_pass += torch.from_numpy(got)
        if not dummy:
            np.add.at(counted, (np.arange(LAYERS), table[:, step % SLOTS]), rank + 1)
        engine.step(is_dummy=dummy)
        link = engine.__dict__.get("_eplbd_link")
        enough = torch.tensor([int(bool(until and step > 60 and until(link, told)))])
        dist.broadcast(enough, 1, group=stage)
        ends_in = ends_in or 150 * int(enough)  # until all ranks know
        if ends_in == 1:
            break
        ends_in = max(0, ends_in - 1)
        time.sleep(0.005)
    if link is not None:
        tell_the_rest(link.session, link._tally, link._model.physical_to_logical_map)
    dist.barrier(group=stage)
    return {
        "seen": seen, "mixed": mixed, "counted": counted, "messages": told.messages,
        "own": engine.own_rearrangements, "linked": link is not None, "sync": engine.sync_rearrangements,
        "passed_on": engine.passed_on, "running": link and link.session.running.id,
    }


def applied(link, told):
    return link.session.running.id > (0, 0)


def failed_and_then_applied(link, told):
    return applied(link, told) and any("failed" in line for line in told.messages)


class Vllm(RanksTest):
    def run_stage(self, placement=NEXT, times=1, mode="active", beats=10**6, settings=None, **keys):
        self.messages = []
        found = self.play(run, GPUS + 1, GPUS, self.settings(**(settings or {})), keys,
                          placement=placement, times=times, mode=mode, beats=beats)[1:]
        for rank in found:
            self.assertFalse(rank["mixed"], "all ranks have one map at each step")
        return found

    def check_counts(self, found):
        for rank, result in enumerate(found):
            counts, steps, _ = self.totals(f"dp{rank}")
            np.testing.assert_array_equal(counts, result["counted"])
            self.assertEqual(int(counts.sum()), steps * LAYERS * (rank + 1))

    def told(self, found, text):
        """Rank 0 says it once."""
        self.assertEqual(sum(text in line for line in found[0]["messages"]), 1, found[0]["messages"])

    def test_all_ranks_take_the_map_in_the_same_step_and_counts_are_right(self):
        for keys in BOTH:
            for interval in (10**6, 1):  # however often vLLM would like to rearrange on its own
                with self.subTest(interval=interval, **keys):
                    found = self.run_stage(until=applied, interval=interval, **keys)
                    self.check_counts(found)
                    for result in found:
                        np.testing.assert_array_equal(result["seen"][-1], NEXT)
                        self.assertEqual(result["running"], (9, 1))
                        # Until the daemon is heard vLLM may have moved to a map of its own.
                        self.assertLessEqual(len(result["seen"]), 3 if interval == 10**6 else 8)
                    self.told(found, "placement 9.1 applied")
                    self.told(found, "follows d: 3 layers")
                    self.assertEqual(self.statuses()[0], "idle")
                    self.assertIn("applied", self.statuses())
                    self.assertIn("applying", self.statuses())

    def test_the_workers_step_takes_no_layer_that_stays(self):
        found = self.run_stage(until=applied, is_async=True)
        for result in found:
            self.assertEqual(result["passed_on"], [("main", 0), ("main", 2)])

    def test_a_map_on_its_way_is_reported_as_it_is(self):
        self.run_stage(until=applied, is_async=True)
        for message in self.messages:
            if message["type"] != "state" or message["status"] != "applying":
                continue
            rows = np.frombuffer(message["physical_to_logical"], "<i4").reshape(LAYERS, SLOTS)
            old = initial(GPUS).physical_to_logical
            done = int((rows[[0, 2]] == NEXT[[0, 2]]).all(1).sum())
            self.assertTrue(all((row == a).all() or (row == b).all()
                                for row, a, b in zip(rows, old, NEXT)))
            self.assertEqual(message["layers_done"], done)

    def test_a_map_that_vllm_does_not_take_is_told_and_tried_again(self):
        found = self.run_stage(until=applied, keeps=1, times=3)
        self.assertEqual(found[0]["running"], (9, 1))
        statuses = [s for s in self.statuses() if s in ("failed", "applied")]
        self.assertEqual(sorted(set(statuses), key=statuses.index), ["failed", "applied"])
        self.told(found, "failed: vLLM's own check on ROCm")
        self.check_counts(found)

    def test_a_worker_that_dies_or_hangs_is_told_and_does_not_block_the_next(self):
        for what, rank in (("dies", 2), ("hangs", 0)):
            with self.subTest(what):
                found = self.run_stage(
                    until=failed_and_then_applied, is_async=True, fault=(what, rank, 2), times=9,
                    settings={"stuck_seconds": 0.5})
                self.check_counts(found)
                for result in found:
                    self.assertEqual((result["running"], result["sync"]), ((9, 1), 1))
                    self.assertEqual(result["passed_on"], [("main", 0)])
                errors = {m["error"] for m in self.messages if m.get("status") == "failed"}
                self.assertEqual(len(errors), 1)
                self.assertIn("synchronous EPLB from now on", errors.pop())

    def test_a_draft_model_is_left_to_vllm(self):
        for keys in BOTH:
            with self.subTest(**keys):
                found = self.run_stage(until=applied, drafts=1, **keys)
                for result in found:
                    np.testing.assert_array_equal(result["seen"][-1], NEXT)
                    self.assertNotIn(("draft", 1), result["passed_on"])

    def test_where_the_daemon_does_not_balance_vllm_does_as_configured(self):
        for why, keys in (
            ("the daemon's mode is observe", {"mode": "observe"}),
            ("no daemon was heard yet", {"mode": ""}),
            ("vLLM 0.99.0 was not checked", {"version": "0.99.0"}),
            ("vLLM 0.18.1 was not checked", {"version": "0.18.1"}),
            ("AsyncEplbLayerResult", {"lacks": ["AsyncEplbLayerResult"]}),
            ("EPLBD_OBSERVE is set", {"settings": {"observe": True}}),
        ):
            with self.subTest(why):
                found = self.run_stage(steps=150, interval=60, **keys)
                for result in found:
                    self.assertEqual(result["own"], 3, "at steps 15, 75 and 135")
                    np.testing.assert_array_equal(result["seen"][-1], OwnPolicy.table.numpy())
                self.told(found, why)
                self.check_counts(found)  # each count under the map that was in force
                states = [m for m in self.messages if m["type"] == "state"]
                self.assertEqual(states[-1]["status"], "idle")
                self.assertIn(why, states[-1]["error"])

    def test_a_daemon_that_is_gone_leaves_the_balancing_to_vllm(self):
        def fell_back(link, told):
            return any("no daemon was heard for 0.3 s" in line for line in told.messages)

        found = self.run_stage(
            until=fell_back, interval=10**6, beats=3, settings={"fallback_seconds": 0.3})
        self.told(found, "observing only, the engine balances by itself: no daemon was heard for")

    def test_a_group_acts_on_placements_of_its_shape_before_and_after_it_was_scaled(self):
        larger = np.tile(np.arange(SLOTS + GPUS)[::-1] % EXPERTS, (LAYERS, 1))
        found = self.run_stage(until=applied, placement=larger, times=60, grows_at=300)
        self.assertTrue(any("have another shape" in line for line in found[0]["messages"]))
        states = [m for m in self.messages if m["type"] == "state"]
        self.assertEqual((states[0]["slots"], states[-1]["slots"]), (SLOTS, SLOTS + GPUS))
        self.assertEqual({m["slots"] for m in states if m["status"] == "applied"}, {SLOTS + GPUS})
        for result in found:
            self.assertEqual(result["running"], (9, 1))
            np.testing.assert_array_equal(result["seen"][-1], larger)

    def test_where_one_rank_has_no_link_all_stay_out(self):
        with tempfile.TemporaryDirectory() as folder:
            public, secret = zmq.curve_keypair()
            for name, key in (("server.pub", public), ("dp0.key", secret), ("dp2.key", secret)):
                Path(folder, name).write_bytes(key + b"\n")
            lacks_a_key = {"secret_key": f"{folder}/dp{{rank}}.key", "server_key": f"{folder}/server.pub"}
            for settings in ({"placements": ("nonsense",)}, lacks_a_key):
                with self.subTest(settings):
                    found = self.run_stage(settings=settings, steps=80)
                    for result in found:
                        self.assertFalse(result["linked"])
                        self.assertTrue(any("stays out" in line for line in result["messages"]))
                    self.assertEqual(self.messages, [])
        self.assertTrue(any("dp1.key" in line for line in found[1]["messages"]))


class Patching(unittest.TestCase):
    def test_a_class_that_is_not_what_we_know_is_left_alone(self):
        class Older:
            def step(self, model, is_dummy=False, is_profile=False, log_stats=False):
                pass

        before = Older.step
        vllm_like.install(None)
        del sys.modules["vllm.distributed.eplb.eplb_state"].EplbModelState
        sys.modules["vllm.distributed.eplb.eplb_state"].EplbState = Older
        with self.assertRaises(RuntimeError):
            vllm.patch(Settings("d", (), ()), "0.10.0")
        self.assertIs(Older.step, before)

    def test_the_main_model_is_the_one_that_is_no_draft(self):
        table = torch.zeros(3, 4)
        draft = types.SimpleNamespace(model_name="m (draft)", physical_to_logical_map=torch.zeros(9, 4))
        main = types.SimpleNamespace(model_name="m", physical_to_logical_map=table)
        older = types.SimpleNamespace(model_name="d", physical_to_logical_map=table[:1])
        self.assertIs(max([draft, main], key=vllm._rank_as_main), main)
        self.assertIs(max([older, main], key=vllm._rank_as_main), main)


if __name__ == "__main__":
    unittest.main()
