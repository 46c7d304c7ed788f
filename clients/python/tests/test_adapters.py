# SPDX-License-Identifier: Apache-2.0
"""Adapters against stand-ins written from what the engines' sources say. No engine is run here."""

import importlib.util
import json
import logging
import multiprocessing
import sys
import tempfile
import time
import types
import unittest

import numpy as np

from eplbd_client import Placement, PlacementId
from eplbd_client.adapters import Settings, files, is_checked
from fake_daemon import FakeDaemon

RANKS = 4
INITIAL = Placement.initial(3, 8, 12, RANKS)
NEXT = np.roll(INITIAL.physical_to_logical, 3, axis=1)
HAVE_TORCH = importlib.util.find_spec("torch") is not None
if HAVE_TORCH:
    import torch
    import torch.distributed as dist


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


def settings_of(daemon, **changes):
    return Settings("d", (daemon.counts_endpoint,), (daemon.placements_endpoint,), **changes)


def begin(rank, size, rendezvous):
    logging.getLogger("eplbd_client").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=size)


def vllm_stand_in():
    """EplbState and what the adapter imports of vLLM."""
    state = types.ModuleType("vllm.distributed.parallel_state")
    state.get_ep_group = lambda: types.SimpleNamespace(device_group=dist.group.WORLD)
    state.get_tensor_model_parallel_rank = lambda: 0
    for name in ("vllm", "vllm.distributed"):
        sys.modules[name] = types.ModuleType(name)
    sys.modules["vllm.distributed.parallel_state"] = state

    class OwnPolicy:
        @classmethod
        def rebalance_experts(cls, *_):
            raise AssertionError("vLLM rearranged on its own")

    class EplbState:
        def __init__(self):
            self.is_async = False
            self.policy = OwnPolicy
            self.expert_rearrangement_step = 0
            self.expert_rearrangement_step_interval = 5
            self.should_record_tensor = torch.zeros((), dtype=torch.bool)
            table = torch.from_numpy(INITIAL.physical_to_logical.astype(np.int64))
            self.model_states = {"model": types.SimpleNamespace(
                physical_to_logical_map=table.clone(),
                expert_load_pass=torch.zeros(table.shape, dtype=torch.int32),
                model=types.SimpleNamespace(num_logical_experts=8))}

        def _should_record_current_step(self, log_stats=False):
            return False

        def step(self, is_dummy=False, is_profile=False, log_stats=False):
            model = self.model_states["model"]
            if is_dummy or self._should_record_current_step():
                model.expert_load_pass.zero_()
            self.expert_rearrangement_step += 1
            if self.expert_rearrangement_step >= self.expert_rearrangement_step_interval:
                self.rearrange()

        def rearrange(self, is_profile=False, rank_mapping=None):
            model = self.model_states["model"]
            table = self.policy.rebalance_experts(None, 12, 1, 1, RANKS,
                                                  model.physical_to_logical_map.cpu())
            model.physical_to_logical_map.copy_(table)

    return EplbState


def run_vllm_rank(rank, rendezvous, settings, results, version="0.18.0"):
    begin(rank, RANKS, rendezvous)
    state_class = vllm_stand_in()
    from eplbd_client.adapters import vllm

    vllm.patch(state_class, settings, version)
    state = state_class()
    model = state.model_states["model"]
    moved_at = None
    for step in range(4000):
        # Every slot got (rank + 1) tokens; a dummy step's must not count.
        model.expert_load_pass += 1000 if step == 3 else rank + 1
        state.step(is_dummy=step == 3)
        if moved_at is None and torch.equal(model.physical_to_logical_map, torch.from_numpy(NEXT.astype(np.int64))):
            moved_at = step
        mine = torch.tensor([moved_at or -1])
        low, high = mine.clone(), mine.clone()
        dist.all_reduce(low, dist.ReduceOp.MIN)
        dist.all_reduce(high, dist.ReduceOp.MAX)
        if low != high:
            results.put((rank, "mixed maps", step))
            return
        enough = torch.tensor([int(moved_at is not None and step > moved_at + 20)])
        dist.broadcast(enough, 0)
        if enough:
            break
        time.sleep(0.005)
    link = state._eplbd_link
    link._send()
    link.publisher.flush(2)
    results.put((rank, moved_at, step, bool(state.should_record_tensor)))
    dist.barrier()
    link.publisher.close()


@unittest.skipUnless(HAVE_TORCH, "python3-torch is not installed")
class Vllm(unittest.TestCase):
    def run_ranks(self, target, *arguments, size=RANKS):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        results = multiprocessing.Queue()
        ranks = [
            multiprocessing.Process(
                target=target, daemon=True,
                args=(rank, f"{self.folder.name}/meet", *arguments[:1], results, *arguments[1:]))
            for rank in range(size)
        ]
        for process in ranks:
            process.start()
        self.addCleanup(lambda: [process.kill() for process in ranks])
        return ranks, results

    def serve(self, daemon, ranks, results):
        """Plays the daemon until every rank has told its result: (results, messages)."""
        told, messages, published = [], [], False
        deadline = time.monotonic() + 60
        while len(told) < len(ranks):
            self.assertLess(time.monotonic(), deadline, "stuck")
            if daemon.counts.poll(20):
                messages.append(daemon.receive()[1])
            joined = bool(daemon.placements.poll(0)) and daemon.placements.recv()[:1] == b"\1"
            if joined and not published:
                daemon.placement(9, 1, NEXT, experts=8, gpus=RANKS)
                published = True
            while not results.empty():
                told.append(results.get())
        while daemon.counts.poll(300):
            messages.append(daemon.receive()[1])
        return sorted(told), messages

    def test_all_ranks_take_the_map_in_the_same_step_and_counts_are_right(self):
        daemon = FakeDaemon()
        self.addCleanup(daemon.close)
        ranks, results = self.run_ranks(run_vllm_rank, settings_of(daemon))
        told, messages = self.serve(daemon, ranks, results)
        self.assertEqual(len({moved for _, moved, *_ in told}), 1, told)
        self.assertIsNotNone(told[0][1], told)
        for rank, _, last, recording in told:
            self.assertTrue(recording, "recording is forced on")
            mine = [m for m in messages if m["source"] == f"ep{rank}"]
            counts = np.frombuffer(mine[-1]["counts"], "<u4").reshape(3, 8)
            # last + 1 steps less the dummy one, 12 slots of (rank + 1) tokens each
            self.assertEqual(counts.sum(axis=1).tolist(), [last * (rank + 1) * 12] * 3)
            self.assertEqual((mine[-1]["term"], mine[-1]["version"]), (9, 1))
            self.assertEqual(sum(m["steps"] for m in mine), last)
        states = [m for m in messages if m["type"] == "state"]
        self.assertEqual([m["status"] for m in states][:1], ["idle"])
        self.assertIn("applied", [m["status"] for m in states])

    def test_observing_counts_and_leaves_the_map_alone(self):
        for changes, version in (({"observe": True}, "0.18.0"), ({}, "0.99.0")):
            with self.subTest(version, **changes):
                daemon = FakeDaemon()
                self.addCleanup(daemon.close)
                settings = settings_of(daemon, **changes)
                ranks, results = self.run_ranks(run_vllm_observer, settings, version)
                told, messages = self.serve(daemon, ranks, results)
                self.assertEqual([moved for _, moved in told], [False] * RANKS)
                self.assertEqual({m["source"] for m in messages}, {f"ep{r}" for r in range(RANKS)})
                self.assertEqual({m["type"] for m in messages}, {"counts"})

    def test_a_class_that_is_not_what_we_know_is_left_alone(self):
        from eplbd_client.adapters import vllm

        class Older:
            def step(self, model, is_dummy=False, is_profile=False, log_stats=False):
                pass

        before = Older.step
        with self.assertRaises(RuntimeError):
            vllm.patch(Older, None, "0.10.0")
        self.assertIs(Older.step, before)


def run_vllm_observer(rank, rendezvous, settings, results, version):
    begin(rank, RANKS, rendezvous)
    state_class = vllm_stand_in()
    from eplbd_client.adapters import vllm

    vllm.patch(state_class, settings, version)
    state = state_class()
    state.expert_rearrangement_step_interval = 10**9
    for _ in range(20):
        state.model_states["model"].expert_load_pass += 1
        state.step()
    state._eplbd_link._send()
    state._eplbd_link.publisher.flush(5)
    table = state.model_states["model"].physical_to_logical_map
    results.put((rank, not torch.equal(table, torch.tensor(INITIAL.physical_to_logical.tolist()))))
    dist.barrier()
    state._eplbd_link.publisher.close()


def run_sglang_rank(rank, rendezvous, settings, results):
    begin(rank, 2, rendezvous)
    ids, calls = [3, 4, 6], []
    full = files.every_layer(Placement.initial(3, 8, 12, 2), ids, 7)
    location = types.ModuleType("sglang.srt.eplb.expert_location")
    recorder = types.ModuleType("sglang.srt.eplb.expert_distribution")
    held = types.SimpleNamespace(physical_to_logical_map=torch.from_numpy(full),
                                 num_logical_experts=8, ep_size=2)
    location.get_global_expert_location_metadata = lambda: held

    class ExpertLocationMetadata:
        @staticmethod
        def init_by_mapping(server_args, model_config, physical_to_logical_map, moe_ep_rank=None):
            return physical_to_logical_map

    location.ExpertLocationMetadata = ExpertLocationMetadata
    counts = torch.arange(7)[None, :, None] * torch.ones((2, 1, 8), dtype=torch.int64)
    recorder.get_global_expert_distribution_recorder = lambda: types.SimpleNamespace(
        dump_record=lambda output_mode: {"logical_count": counts})
    for name in ("sglang", "sglang.srt", "sglang.srt.eplb"):
        sys.modules[name] = types.ModuleType(name)
    sys.modules["sglang.srt.eplb.expert_location"] = location
    sys.modules["sglang.srt.eplb.expert_distribution"] = recorder

    class EPLBManager:
        def __init__(self, model_runner):
            self._model_runner = model_runner

        def on_forward_pass_end(self):
            raise AssertionError("SGLang rebalanced on its own")

    from eplbd_client.adapters import sglang

    sglang.patch(EPLBManager, settings, "0.5.3")
    runner = types.SimpleNamespace(
        model=types.SimpleNamespace(routed_experts_weights_of_layer={6: 0, 3: 0, 4: 0}),
        server_args=None, model_config=None,
        update_expert_location=lambda table, update_layer_ids: calls.append(
            (step, table.tolist(), update_layer_ids)))
    manager = EPLBManager(runner)
    for step in range(4000):
        manager.on_forward_pass_end()
        enough = torch.tensor([int(bool(calls) and step > 120)])
        dist.broadcast(enough, 0)
        if enough:
            break
        time.sleep(0.005)
    if rank == 0:
        manager._eplbd_link.publisher.flush(2)
    results.put((rank, calls))
    dist.barrier()


@unittest.skipUnless(HAVE_TORCH, "python3-torch is not installed")
class Sglang(unittest.TestCase):
    run_ranks = Vllm.run_ranks if HAVE_TORCH else None

    def test_layer_numbers_both_ways(self):
        daemon = FakeDaemon()
        self.addCleanup(daemon.close)
        ranks, results = self.run_ranks(run_sglang_rank, settings_of(daemon), size=2)
        table = np.array(Placement.initial(3, 8, 12, 2).physical_to_logical)
        table[2, :2] = [1, 0]  # the last MoE layer only, the model's layer 6
        told, messages, published = [], [], False
        deadline = time.monotonic() + 60
        while len(told) < 2:
            self.assertLess(time.monotonic(), deadline, "stuck")
            if daemon.counts.poll(20):
                messages.append(daemon.receive()[1])
            if not published and daemon.placements.poll(0):
                daemon.placements.recv()
                daemon.placement(9, 1, table, experts=8, gpus=2)
                published = True
            while not results.empty():
                told.append(results.get())
        self.assertEqual([rank for rank, _ in sorted(told)], [0, 1])
        self.assertEqual(told[0][1], told[1][1])
        (_, rows, changed), = told[0][1]
        self.assertEqual(changed, [6])
        self.assertEqual(len(rows), 7)
        self.assertEqual(rows[6], table[2].tolist())
        self.assertEqual(rows[2], table[0].tolist())
        counts = [m for m in messages if m["type"] == "counts" and m["steps"]]
        self.assertEqual({m["scope"] for m in counts}, {"global"})
        found = np.frombuffer(counts[0]["counts"], "<u4").reshape(3, 8)
        self.assertEqual(found[:, 0].tolist(), [2 * 3, 2 * 4, 2 * 6])


if __name__ == "__main__":
    unittest.main()
