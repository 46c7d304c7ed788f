# SPDX-License-Identifier: Apache-2.0
"""SGLang's adapter against a stand-in that keeps to what EPLBManager does. scripts/engines runs it
against SGLang's own files."""

import inspect
import sys
import time
import types
import unittest

import numpy as np

from ranks import EXPERTS, SLOTS, RanksTest, Told, dist, initial, same_on_all, tell_the_rest, torch

from eplbd_client import Placement, PlacementId
from eplbd_client.adapters import Settings, files, sglang

GPUS = 2
IDS, MODEL_LAYERS = [3, 4, 6], 7  # a dense prefix, and a dense layer between
VERSION = "0.5.23"
NEXT = np.array(initial(GPUS).physical_to_logical)
NEXT[1:, :2] = [1, 0]


class Metadata:
    """ExpertLocationMetadata: a row for every layer of the model."""

    def __init__(self, table):
        self.physical_to_logical_map = table
        self.num_logical_experts, self.ep_size = EXPERTS, GPUS


class _Accumulator:
    def append(self, forward_pass_id, gatherer_key, single_pass_data, outputs=None):
        self.passes.append(single_pass_data["global_physical_count"])


class Recorder:
    """Tokens per slot of this rank's passes; a dump begins anew."""

    def __init__(self, recording):
        self.recording = recording
        if recording:
            self._accumulator = _Accumulator()
            self._accumulator.passes = []

    def dump_record(self, output_mode="file"):
        self._accumulator.passes = []
        return {"logical_count": None, "average_utilization_rate_over_window": 0.9}


class EPLBManager:
    def __init__(self, metadata, recorder, interval, chunk, idle=False):
        self.metadata, self.recorder, self.interval, self.chunk = metadata, recorder, interval, chunk
        self.idle = idle  # SGLang's own: disabled while it scales
        self.own, self.updated = 0, []
        self._main_generator = self._entrypoint()

    def on_forward_pass_end(self):
        next(self._main_generator)

    def _entrypoint(self):
        while True:
            for _ in range(self.interval):
                yield
            self.own += 1
            yield from self.rebalance()

    def rebalance(self):
        if self.idle:
            return
        record = self.recorder.dump_record(output_mode="object")
        if not self._check_rebalance_needed(record["average_utilization_rate_over_window"]):
            return
        algorithms = sys.modules["sglang.srt.eplb.eplb_algorithms"]
        table, to_all, count = algorithms.rebalance_experts(record["logical_count"], SLOTS)
        assert table.shape == (MODEL_LAYERS, SLOTS) and count.shape == (MODEL_LAYERS, EXPERTS)
        chunks = self._compute_update_layer_ids_chunks()
        for layers in chunks:
            if len(chunks) > 1:
                yield
            self.updated.append(layers)
            self.metadata.physical_to_logical_map[layers] = table[layers]

    def _check_rebalance_needed(self, average_utilization_rate_over_window):
        return self.interval < 1000 or average_utilization_rate_over_window < 0.5

    def _compute_update_layer_ids_chunks(self):
        return [IDS[i : i + self.chunk] for i in range(0, len(IDS), self.chunk)]


def own_answer(tokens_per_expert, num_physical_experts):
    """SGLang's: here, one map for good."""
    table = as_placement(np.roll(initial(GPUS).physical_to_logical, 1, axis=1))
    full = as_placement(files.every_layer(table, IDS, MODEL_LAYERS))
    return (torch.from_numpy(full.physical_to_logical.astype(np.int64)),
            torch.from_numpy(full.logical_to_physical()),
            torch.from_numpy(full.logical_replica_count()))


def as_placement(table):
    return Placement(PlacementId(0, 0), table, EXPERTS, GPUS)


def install(metadata, recorder, a2a="deepep", rank_invariant=True):
    """Makes `sglang` of it in this process."""
    fields = {"rank_invariant": False} if rank_invariant else {}
    info = types.new_class("ExpertLocationDispatchInfo")
    info.__signature__ = inspect.Signature(
        [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in fields])
    exec_bag = types.SimpleNamespace(moe=types.SimpleNamespace(moe_a2a_backend=a2a))
    parts = {
        "": {}, "srt": {}, "srt.eplb": {},
        "srt.runtime_context": {"get_exec": lambda: exec_bag},
        "srt.eplb.eplb_manager": {
            "EPLBManager": type("Patched", (EPLBManager,), dict(EPLBManager.__dict__))},
        "srt.eplb.eplb_algorithms": {"rebalance_experts": own_answer},
        "srt.eplb.expert_location": {"get_global_expert_location_metadata": lambda: metadata},
        "srt.eplb.expert_location_dispatch": {"ExpertLocationDispatchInfo": info},
        "srt.eplb.expert_distribution": {
            "_Accumulator": _Accumulator, "get_global_expert_distribution_recorder": lambda: recorder},
    }
    for name, contents in parts.items():
        module = types.ModuleType(f"sglang.{name}".rstrip("."))
        module.__dict__.update(contents)
        sys.modules[module.__name__] = module
    sys.modules["sglang.srt"].runtime_context = sys.modules["sglang.srt.runtime_context"]
    return sys.modules["sglang.srt.eplb.eplb_manager"].EPLBManager


def run(rank, gpus, settings, keys):
    version, passes = keys.get("version", VERSION), keys.get("passes", 4000)
    until = keys.get("until")
    told = Told()
    full = files.every_layer(initial(GPUS), IDS, MODEL_LAYERS)
    metadata = Metadata(torch.from_numpy(full.astype(np.int64)))
    recorder = Recorder(keys.get("recording", True))
    manager_class = install(metadata, recorder, **keys.get("parts", {}))
    sglang.patch(settings, version)
    manager = manager_class(metadata, recorder, keys.get("interval", 1000), keys.get("chunk", 100),
                            keys.get("idle", False))
    counted, seen, mixed = np.zeros((3, EXPERTS), np.int64), [], False
    link, ends_in = None, 0
    for step in range(passes):
        table = metadata.physical_to_logical_map.numpy().copy()
        mixed |= not same_on_all(int(np.dot(table.ravel(), np.arange(table.size))))
        if not seen or not np.array_equal(seen[-1], table):
            seen.append(table)
        tokens = torch.zeros(MODEL_LAYERS, SLOTS, dtype=torch.int32)
        tokens[IDS, step % SLOTS] = rank + 1
        if recorder.recording:
            recorder._accumulator.append(step, "primary", {"global_physical_count": tokens})
        np.add.at(counted, (np.arange(3), table[IDS, step % SLOTS]), rank + 1)
        manager.on_forward_pass_end()
        link = manager.__dict__.get("_eplbd_link")
        enough = torch.tensor([int(bool(until and step > 60 and until(link)))])
        dist.broadcast(enough, 0)
        ends_in = ends_in or 150 * int(enough)  # until all ranks know
        if ends_in == 1:
            break
        ends_in = max(0, ends_in - 1)
        time.sleep(0.005)
    if link is not None:
        tell_the_rest(link.session, link._tap.tally, metadata.physical_to_logical_map)
    dist.barrier()
    return {"seen": seen, "mixed": mixed, "counted": counted, "messages": told.messages,
            "own": manager.own, "updated": manager.updated, "linked": link is not None,
            "running": link and link.session.running.id, "steps": step + 1}


def applied(link):
    return link.session.running.id > (0, 0)


class Sglang(RanksTest):
    def run_ranks(self, placement=NEXT, mode="active", **keys):
        self.messages = []
        found = self.play(run, GPUS, GPUS, self.settings(**keys.pop("settings", {})), keys,
                          placement=placement, times=keys.pop("times", 1), mode=mode)
        for rank in found:
            self.assertFalse(rank["mixed"], "all ranks have one map in each pass")
        return found

    def check_counts(self, found, sources=GPUS):
        for rank in range(sources):
            counts, steps, _ = self.totals(f"dp{rank}")
            np.testing.assert_array_equal(counts, found[rank]["counted"])
            self.assertEqual(steps, found[rank]["steps"])
        others = {m["source"] for m in self.messages if m["type"] == "counts"}
        self.assertEqual(len(others), sources)

    def test_the_map_is_taken_in_the_same_pass_and_counts_are_right(self):
        for chunk, changes in ((100, 2), (1, 3)):  # all layers at once, and one in each pass
            with self.subTest(chunk=chunk):
                found = self.run_ranks(until=applied, chunk=chunk)
                for rank in found:
                    self.assertEqual((rank["own"], rank["running"]), (0, (9, 1)))
                    self.assertEqual(len(rank["seen"]), changes)
                    np.testing.assert_array_equal(rank["seen"][-1][IDS], NEXT)
                    dense = [0, 1, 2, 5]
                    np.testing.assert_array_equal(rank["seen"][-1][dense], rank["seen"][0][dense])
                    self.assertEqual(sum(rank["updated"], []), IDS)
                self.check_counts(found)
                self.assertIn("applied", self.statuses())

    def test_what_sglang_began_by_itself_ends_before_ours_begins(self):
        found = self.run_ranks(until=applied, chunk=1, interval=3)
        for rank in found:
            np.testing.assert_array_equal(rank["seen"][-1][IDS], NEXT)
            self.assertEqual(len(rank["updated"]) % len(IDS), 0)
        self.check_counts(found)

    def test_a_map_that_sglang_does_not_take_is_told(self):
        found = self.run_ranks(passes=250, idle=True)
        self.assertEqual(found[0]["running"], (0, 0))
        self.assertIn("failed", self.statuses())
        self.assertNotIn("applied", self.statuses())

    def test_replicas_are_refused_where_they_give_wrong_output(self):
        for rank_invariant in (False, True):
            with self.subTest(rank_invariant=rank_invariant):
                found = self.run_ranks(
                    passes=250, parts={"a2a": "none", "rank_invariant": rank_invariant})
                self.assertEqual(found[0]["running"], (9, 1) if rank_invariant else (0, 0))
                errors = [m["error"] for m in self.messages if m.get("status") == "refused"]
                self.assertEqual(bool(errors), not rank_invariant)
                self.assertTrue(all("moe-a2a-backend none" in error for error in errors))
                self.check_counts(found, sources=1)

    def test_where_the_daemon_does_not_balance_sglang_does_as_configured(self):
        for why, keys in (("EPLBD_OBSERVE is set", {"settings": {"observe": True}}),
                          ("SGLang 0.6.0 was not checked", {"version": "0.6.0"}),
                          ("the daemon's mode is shadow", {"mode": "shadow"})):
            with self.subTest(why):
                found = self.run_ranks(passes=100, interval=40, **keys)
                for rank in found:
                    self.assertEqual(rank["own"], 2)
                    self.assertEqual(len(rank["seen"]), 2)
                self.assertTrue(any(why in line for line in found[0]["messages"]))
                self.check_counts(found)
                states = [m for m in self.messages if m["type"] == "state"]
                rows = np.frombuffer(states[-1]["physical_to_logical"], "<i4").reshape(-1, SLOTS)
                np.testing.assert_array_equal(rows, found[0]["seen"][-1][IDS])

    def test_a_recorder_that_is_off(self):
        found = self.run_ranks(passes=50, recording=False)
        for rank in found:
            self.assertFalse(rank["linked"])
            self.assertTrue(any("stays out" in line for line in rank["messages"]))


class Patching(unittest.TestCase):
    def test_a_class_that_is_not_what_we_know_is_left_alone(self):
        class Older:
            def on_forward_pass_end(self):
                pass

        before = Older.on_forward_pass_end
        install(None, None)
        sys.modules["sglang.srt.eplb.eplb_manager"].EPLBManager = Older
        with self.assertRaises(RuntimeError):
            sglang.patch(Settings("d", (), ()), "0.4.0")
        self.assertIs(Older.on_forward_pass_end, before)


if __name__ == "__main__":
    unittest.main()
