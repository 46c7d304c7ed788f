# SPDX-License-Identifier: Apache-2.0
"""vLLM's adapter against a stand-in that keeps to what EplbState does. No vLLM is run here."""

import sys
import time
import types
import unittest

import numpy as np

from ranks import EXPERTS, LAYERS, SLOTS, RanksTest, Told, dist, initial, same_on_all, torch

from eplbd_client.adapters import vllm

GPUS = 3
VERSION = "0.25.0"
NEXT = np.roll(initial(GPUS).physical_to_logical, 4, axis=1)


class OwnPolicy:
    """vLLM's: here, one map for good."""

    table = torch.from_numpy(np.roll(NEXT, 4, axis=1).astype(np.int64))

    @classmethod
    def rebalance_experts(cls, weight, num_replicas, num_groups, num_nodes, num_ranks,
                          old_global_expert_indices=None) -> torch.Tensor:
        return cls.table


class ThreeMaps(OwnPolicy):
    """As policies answered until 0.18."""

    @classmethod
    def rebalance_experts(cls, weight, num_replicas, num_groups, num_nodes, num_ranks,
                          old_global_expert_indices=None) -> tuple[torch.Tensor, ...]:
        return cls.table, None, None


class EplbState:
    """One model; each rank's weights are a number a slot, the expert's. Moves are checked by it."""

    def __init__(self, rank, group, policy=OwnPolicy, interval=10**6, is_async=False, keeps=0):
        table = torch.from_numpy(initial(GPUS).physical_to_logical.astype(np.int64))
        self.is_async, self.policy, self.group, self.rank = is_async, policy, group, rank
        self.keeps = keeps  # so many times it finds that the gain is not worth it (ROCm)
        self.expert_rearrangement_step = interval - interval // 4
        self.expert_rearrangement_step_interval = interval
        self.expert_load_window_size = 4
        self.should_record_tensor = torch.ones((), dtype=torch.bool)
        self.own_rearrangements = 0
        self.model = types.SimpleNamespace(
            physical_to_logical_map=table.clone(),
            expert_load_pass=torch.zeros(table.shape, dtype=torch.int32),
            rebalanced=False,
            weights=self.mine(table).clone(),
            model=types.SimpleNamespace(num_logical_experts=EXPERTS),
        )
        self.model_states = {"hash": self.model}

    def mine(self, table):
        return table.reshape(LAYERS, GPUS, -1)[:, self.rank]

    def step(self, is_dummy=False, is_profile=False, log_stats=False):
        if is_profile:
            return self.rearrange(is_profile=True)
        if is_dummy or self._should_record_current_step(log_stats=log_stats):
            self.model.expert_load_pass.zero_()
        self.expert_rearrangement_step += 1
        if self.expert_rearrangement_step >= self.expert_rearrangement_step_interval:
            self.expert_rearrangement_step = 0
            self.own_rearrangements += 1
            self.rearrange()
        self.should_record_tensor.fill_(self._should_record_current_step(log_stats=log_stats))

    def _should_record_current_step(self, log_stats=False):
        left = self.expert_rearrangement_step_interval - self.expert_rearrangement_step
        return left <= self.expert_load_window_size

    def rearrange(self, is_profile=False, rank_mapping=None):
        model = self.model
        table = self.policy.rebalance_experts(
            torch.zeros(LAYERS, EXPERTS), SLOTS, 1, 1, GPUS, model.physical_to_logical_map.cpu())
        table = table[0] if self.policy is ThreeMaps else table
        assert table.shape == model.physical_to_logical_map.shape
        if is_profile:
            return
        if self.keeps:
            self.keeps -= 1
            return
        everybody = [torch.empty_like(model.weights) for _ in range(GPUS)]
        dist.all_gather(everybody, model.weights, group=self.group)
        held = torch.stack(everybody, dim=1).reshape(LAYERS, SLOTS)
        first = (model.physical_to_logical_map[:, None, :] == table[:, :, None]).int().argmax(2)
        model.weights = self.mine(held.gather(1, first)).clone()
        model.physical_to_logical_map.copy_(table)


def run(rank, gpus, settings, version=VERSION, steps=4000, until=None, **state):
    """Rank 0 of the world is another pipeline stage's: this stage has ranks of its own."""
    stage, ours = (dist.new_group(list(range(1, gpus + 1))) for _ in range(2))
    vllm.own_group = lambda group: ours  # torch before 2.1 makes one with the whole world only
    told = Told()
    parallel = types.ModuleType("vllm.distributed.parallel_state")
    parallel.get_ep_group = lambda: types.SimpleNamespace(device_group=stage)
    parallel.get_tensor_model_parallel_rank = lambda: 0
    for name in ("vllm", "vllm.distributed"):
        sys.modules[name] = types.ModuleType(name)
    sys.modules["vllm.distributed.parallel_state"] = parallel
    if rank == 0:
        return {}
    rank -= 1
    patched = type("Patched", (EplbState,), dict(EplbState.__dict__))
    vllm.patch(patched, settings, version)
    engine = patched(rank, stage, **state)
    model = engine.model
    engine.step(is_profile=True)
    counted = np.zeros((LAYERS, EXPERTS), np.int64)
    seen, mixed = [], False
    for step in range(steps):
        table = model.physical_to_logical_map.numpy().copy()
        assert np.array_equal(model.weights.numpy(), engine.mine(torch.from_numpy(table)).numpy())
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
        if enough:
            break
        time.sleep(0.005)
    if link is not None:
        link._send()
        link.publisher.flush(2)
    dist.barrier(group=stage)
    return {
        "seen": seen, "mixed": mixed, "counted": counted, "messages": told.messages,
        "own": engine.own_rearrangements, "linked": link is not None,
        "running": link and link.running.id,
    }


def applied(link, told):
    return link.running.id > (0, 0)


class Vllm(RanksTest):
    def run_stage(self, **keys):
        found = self.play(run_keys, GPUS + 1, GPUS, self.settings(**keys.pop("settings", {})), keys,
                          placement=keys.pop("placement", NEXT), times=keys.pop("times", 1))[1:]
        for rank in found:
            self.assertFalse(rank["mixed"], "all ranks have one map at each step")
        return found

    def check_counts(self, found):
        for rank, result in enumerate(found):
            counts, steps, _ = self.totals(f"ep{rank}")
            np.testing.assert_array_equal(counts, result["counted"])
            self.assertEqual(int(counts.sum()), steps * LAYERS * (rank + 1))

    def test_all_ranks_take_the_map_in_the_same_step_and_counts_are_right(self):
        for interval in (10**6, 1):  # however often vLLM would like to rearrange on its own
            with self.subTest(interval=interval):
                self.messages = []
                found = self.run_stage(until=applied, interval=interval)
                self.check_counts(found)
                for result in found:
                    self.assertEqual(len(result["seen"]), 2)
                    np.testing.assert_array_equal(result["seen"][1], NEXT)
                    self.assertEqual((result["own"], result["running"]), (0, (9, 1)))
                self.assertEqual(self.statuses()[0], "idle")
                self.assertIn("applied", self.statuses())

    def test_a_map_that_vllm_does_not_take_is_told_and_tried_again(self):
        found = self.run_stage(until=applied, keeps=1, times=3)
        self.assertEqual(found[0]["running"], (9, 1))
        statuses = [s for s in self.statuses() if s in ("failed", "applied")]
        self.assertEqual(statuses[:2], ["failed", "applied"])
        self.check_counts(found)

    def test_where_it_may_not_apply_it_counts_and_leaves_vllm_alone(self):
        for why, keys in (
            ("asynchronous EPLB", {"is_async": True}),
            ("three maps", {"policy": ThreeMaps}),
            ("was not checked", {"version": "0.99.0"}),
            ("was not checked", {"version": "0.18.1"}),
            ("", {"settings": {"observe": True}}),
        ):
            with self.subTest(why, keys=list(keys)):
                self.messages = []
                found = self.run_stage(steps=100, interval=40, **keys)
                self.assertEqual({m["type"] for m in self.messages}, {"counts"})
                for result in found:
                    self.assertEqual(result["own"], 3, "at steps 10, 50 and 90")
                    self.assertTrue(any(why in line for line in result["messages"]) or not why)
                self.check_counts(found)  # each count under the map that was in force

    def test_without_a_link_on_rank_0_all_stay_out(self):
        found = self.run_stage(settings={"counts": ("nonsense",)}, steps=80)
        for result in found:
            self.assertFalse(result["linked"])
            self.assertTrue(any("stays out" in line for line in result["messages"]))
        self.assertEqual(self.messages, [])

    def test_a_class_that_is_not_what_we_know_is_left_alone(self):
        class Older:
            def step(self, model, is_dummy=False, is_profile=False, log_stats=False):
                pass

        before = Older.step
        with self.assertRaises(RuntimeError):
            vllm.patch(Older, None, "0.10.0")
        self.assertIs(Older.step, before)


def run_keys(rank, gpus, settings, keys):
    return run(rank, gpus, settings, **keys)


if __name__ == "__main__":
    unittest.main()
