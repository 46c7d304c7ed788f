# SPDX-License-Identifier: Apache-2.0
"""SGLang's adapter against a stand-in that keeps to what EPLBManager does. No SGLang is run here."""

import sys
import time
import types
import unittest

import numpy as np

from ranks import EXPERTS, SLOTS, RanksTest, Told, dist, initial, same_on_all, torch

from eplbd_client.adapters import files, sglang

GPUS = 2
IDS, MODEL_LAYERS = [3, 4, 6], 7  # a dense prefix, and a dense layer between
VERSION = "0.5.14"
NEXT = np.array(initial(GPUS).physical_to_logical)
NEXT[1:, :2] = [1, 0]


class Metadata:
    """ExpertLocationMetadata: a row for every layer of the model."""

    def __init__(self, table):
        self.physical_to_logical_map = table
        self.num_logical_experts, self.ep_size = EXPERTS, GPUS

    @staticmethod
    def init_by_mapping(server_args, model_config, physical_to_logical_map, moe_ep_rank=None):
        assert physical_to_logical_map.shape == (MODEL_LAYERS, SLOTS)
        return Metadata(physical_to_logical_map.clone())

    @staticmethod
    def init_by_eplb(server_args, model_config, logical_count):
        own = np.roll(initial(GPUS).physical_to_logical, 1, axis=1)
        return Metadata(torch.from_numpy(files.every_layer(as_placement(own), IDS, MODEL_LAYERS)))


class Recorder:
    """Tokens per slot of this rank's passes; a dump sums over the ranks and begins anew."""

    def __init__(self, metadata):
        self.metadata, self.passes, self.recording = metadata, [], True

    def dump_record(self, output_mode="file"):
        table = self.metadata.physical_to_logical_map.long()
        counts = torch.zeros(len(self.passes), MODEL_LAYERS, EXPERTS, dtype=torch.int64)
        for i, tokens in enumerate(self.passes):
            counts[i].scatter_add_(1, table, tokens)
        self.passes = []
        dist.all_reduce(counts)
        if output_mode == "object":
            return {"logical_count": counts, "average_utilization_rate_over_window": 0.9}


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
        new = Metadata.init_by_eplb("args", "config", record["logical_count"])
        chunks = self._compute_update_layer_ids_chunks()
        for layers in chunks:
            if len(chunks) > 1:
                yield
            self.updated.append(layers)
            self.metadata.physical_to_logical_map[layers] = new.physical_to_logical_map[layers]

    def _check_rebalance_needed(self, utilization):
        return utilization < 0.5

    def _compute_update_layer_ids_chunks(self):
        return [IDS[i : i + self.chunk] for i in range(0, len(IDS), self.chunk)]


def as_placement(table):
    from eplbd_client import Placement, PlacementId

    return Placement(PlacementId(0, 0), table, EXPERTS, GPUS)


def install(metadata, recorder):
    for name in ("sglang", "sglang.srt", "sglang.srt.eplb"):
        sys.modules[name] = types.ModuleType(name)
    location = types.ModuleType("sglang.srt.eplb.expert_location")
    location.ExpertLocationMetadata = Metadata
    location.get_global_expert_location_metadata = lambda: metadata
    distribution = types.ModuleType("sglang.srt.eplb.expert_distribution")
    distribution.get_global_expert_distribution_recorder = lambda: recorder
    sys.modules[location.__name__] = location
    sys.modules[distribution.__name__] = distribution


def run(rank, gpus, settings, keys):
    version, passes = keys.get("version", VERSION), keys.get("passes", 4000)
    until = keys.get("until")
    told = Told()
    full = files.every_layer(initial(GPUS), IDS, MODEL_LAYERS)
    metadata = Metadata(torch.from_numpy(full.copy()))
    recorder = Recorder(metadata)
    recorder.recording = keys.get("recording", True)
    install(metadata, recorder)
    patched = type("Patched", (EPLBManager,), dict(EPLBManager.__dict__))
    sglang.patch(patched, settings, version)
    manager = patched(metadata, recorder, keys.get("interval", 1000), keys.get("chunk", 100),
                      keys.get("idle", False))
    counted, seen, mixed = np.zeros((3, EXPERTS), np.int64), [], False
    link = None
    for step in range(passes):
        table = metadata.physical_to_logical_map.numpy().copy()
        mixed |= not same_on_all(int(np.dot(table.ravel(), np.arange(table.size))))
        if not seen or not np.array_equal(seen[-1], table):
            seen.append(table)
        tokens = torch.zeros(MODEL_LAYERS, SLOTS, dtype=torch.int64)
        tokens[IDS, step % SLOTS] = rank + 1
        recorder.passes.append(tokens)
        np.add.at(counted, (np.arange(3), table[IDS, step % SLOTS]), rank + 1)
        manager.on_forward_pass_end()
        link = manager.__dict__.get("_eplbd_link")
        enough = torch.tensor([int(bool(until and step > 60 and until(link)))])
        dist.broadcast(enough, 0)
        if enough:
            break
        time.sleep(0.005)
    if link is not None:
        recorder.dump_record(output_mode="object")
        if link.publisher:
            link.publisher.flush(2)
    dist.barrier()
    return {"seen": seen, "mixed": mixed, "counted": counted, "messages": told.messages,
            "own": manager.own, "updated": manager.updated, "linked": link is not None,
            "running": link and link.running.id, "steps": step + 1}


def applied(link):
    return link.running.id > (0, 0)


class Sglang(RanksTest):
    def run_ranks(self, **keys):
        found = self.play(run, GPUS, GPUS, self.settings(**keys.pop("settings", {})), keys,
                          placement=NEXT, times=keys.pop("times", 1))
        for rank in found:
            self.assertFalse(rank["mixed"], "all ranks have one map in each pass")
        return found

    def check_counts(self, found):
        counts, steps, messages = self.totals("head")
        np.testing.assert_array_equal(counts, sum(rank["counted"] for rank in found))
        self.assertEqual(steps, found[0]["steps"])
        self.assertEqual({m["scope"] for m in messages}, {"global"})

    def test_the_map_is_taken_in_the_same_pass_and_counts_are_right(self):
        for chunk, changes in ((100, 2), (1, 3)):  # all layers at once, and one in each pass
            with self.subTest(chunk=chunk):
                self.messages = []
                found = self.run_ranks(until=applied, chunk=chunk, interval=3)
                for rank in found:
                    self.assertEqual((rank["own"], rank["running"]), (0, (9, 1)))
                    self.assertEqual(len(rank["seen"]), changes)
                    np.testing.assert_array_equal(rank["seen"][-1][IDS], NEXT)
                    dense = [0, 1, 2, 5]
                    np.testing.assert_array_equal(rank["seen"][-1][dense], rank["seen"][0][dense])
                    self.assertEqual(sum(rank["updated"], []), IDS)
                self.check_counts(found)
                self.assertIn("applied", self.statuses())
        own = np.roll(initial(GPUS).physical_to_logical, 1, axis=1)
        answer = Metadata.init_by_eplb(None, None, None).physical_to_logical_map[IDS]
        np.testing.assert_array_equal(answer, own, "the algorithm is unpinned again")

    def test_a_map_that_sglang_does_not_take_is_told(self):
        found = self.run_ranks(passes=150, idle=True)
        self.assertEqual(found[0]["running"], (0, 0))
        self.assertIn("failed", self.statuses())
        self.assertNotIn("applied", self.statuses())

    def test_where_it_only_observes_sglang_rebalances_by_itself(self):
        for keys in ({"settings": {"observe": True}}, {"version": "0.6.0"}):
            with self.subTest(keys=list(keys)):
                self.messages = []
                found = self.run_ranks(passes=100, interval=40, **keys)
                for rank in found:
                    self.assertEqual(rank["own"], 2)
                self.check_counts(found)
                self.assertEqual(self.statuses(), [])

    def test_a_recorder_that_is_off(self):
        found = self.run_ranks(passes=50, recording=False)
        for rank in found:
            self.assertFalse(rank["linked"])
            self.assertTrue(any("stays out" in line for line in rank["messages"]))

    def test_a_class_that_is_not_what_we_know_is_left_alone(self):
        class Older:
            def on_forward_pass_end(self):
                pass

        with self.assertRaises(RuntimeError):
            sglang.patch(Older, None, "0.4.0")


if __name__ == "__main__":
    unittest.main()
