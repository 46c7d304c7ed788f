# SPDX-License-Identifier: Apache-2.0
"""A stand-in that keeps to what vLLM's load balancing does around EplbState. No vLLM is run here."""

import dataclasses
import sys
import threading
import types

import numpy as np

from ranks import EXPERTS, LAYERS, SLOTS, dist, initial, torch

GPUS = 3


class OwnPolicy:
    """vLLM's: here, one map for good."""

    table = torch.from_numpy(np.roll(initial(GPUS).physical_to_logical, 8, axis=1).astype(np.int64))

    @classmethod
    def rebalance_experts(cls, weight, num_replicas, num_groups, num_nodes, num_ranks,
                          old_global_expert_indices=None) -> torch.Tensor:
        return cls.table[: old_global_expert_indices.shape[0]]


class Event:
    """Once by one thread, once by the other."""

    def __init__(self):
        self.happened = threading.Event()

    def record(self):
        self.happened.set()

    def wait(self):
        self.happened.wait()
        self.happened.clear()


@dataclasses.dataclass
class EplbModelState:
    physical_to_logical_map: torch.Tensor
    expert_load_pass: torch.Tensor
    model: object
    rebalanced: bool
    pending_result: object
    expert_buffer: object
    communicator: object
    model_name: str


class AsyncEplbLayerResult:
    def __init__(self, layer_idx, new_physical_to_logical_map, consumed_event):
        self.__dict__.update({k: v for k, v in locals().items() if k != "self"})


class TorchDistGlooStagedEplbCommunicator:
    def __init__(self, cpu_group):
        self.group = cpu_group


class EplbState:
    """Each rank's weights are a number a slot, the expert's. Moves are checked by it."""

    def __init__(self, rank, groups, interval=10**6, is_async=False, keeps=0, drafts=0, fault=None):
        self.group, worker_group, self.rank = *groups, rank
        self.is_async, self.policy = is_async, OwnPolicy
        self.keeps = keeps  # so many times it finds that the gain is not worth it (ROCm)
        self.fault = fault  # ("dies" or "hangs", rank, layer) of the worker, once
        self.expert_rearrangement_step = interval - interval // 4
        self.expert_rearrangement_step_interval = interval
        self.should_record_tensor = torch.ones((), dtype=torch.bool)
        self.own_rearrangements = self.sync_rearrangements = 0
        self.passed_on = []  # layers that the step took from the worker
        self.model_states = {
            name: self.make(worker_group, name) for name in ["draft"] * drafts + ["main"]}
        self.model = self.model_states["main"]
        self.rearrange_event = Event()
        self.async_worker = None
        if is_async:
            self.async_worker = threading.Thread(target=self.work, daemon=True)
            self.async_worker.start()

    def make(self, group, name):
        table = torch.from_numpy(initial(GPUS).physical_to_logical.astype(np.int64))
        table = table[: LAYERS if name == "main" else 1].clone()
        weights = self.mine(table).clone()
        model = types.SimpleNamespace(num_logical_experts=EXPERTS, expert_weights=weights)
        return EplbModelState(table, torch.zeros(table.shape, dtype=torch.int32), model, False, None,
                              None, TorchDistGlooStagedEplbCommunicator(group), name)

    def mine(self, table):
        return table.reshape(table.shape[0], GPUS, -1)[:, self.rank]

    def step(self, is_dummy=False, is_profile=False, log_stats=False):
        if is_profile:
            return self.rearrange(is_profile=True)
        if is_dummy or self._should_record_current_step(log_stats=log_stats):
            for model in self.model_states.values():
                model.expert_load_pass.zero_()
        self.expert_rearrangement_step += 1
        if self.is_async:
            for model in self.model_states.values():
                if model.rebalanced and self.all_ready(model):
                    self.take(model)
        if self.expert_rearrangement_step >= self.expert_rearrangement_step_interval:
            if self.is_async and any(model.rebalanced for model in self.model_states.values()):
                return
            self.expert_rearrangement_step = 0
            self.own_rearrangements += 1
            self.rearrange()
        self.should_record_tensor.fill_(self._should_record_current_step(log_stats=log_stats))

    def _should_record_current_step(self, log_stats=False):
        left = self.expert_rearrangement_step_interval - self.expert_rearrangement_step
        return left <= 4

    def ask(self, model):
        old = model.physical_to_logical_map.clone()
        return old, self.policy.rebalance_experts(None, SLOTS, 1, 1, GPUS, old)

    def rearrange(self, is_profile=False, rank_mapping=None):
        if self.is_async and not is_profile:
            for model in self.model_states.values():
                model.rebalanced = True
            return self.rearrange_event.record()
        for model in self.model_states.values():
            old, new = self.ask(model)
            if is_profile:
                continue
            if self.keeps:
                self.keeps -= 1
                continue
            self.sync_rearrangements += 1
            for layer in range(new.shape[0]):
                moved = self.moved(model, model.communicator.group, layer, old, new)
                model.model.expert_weights[layer] = moved
            model.physical_to_logical_map.copy_(new)

    def moved(self, model, group, layer, old, new):
        """This rank's weights of a layer under the new map."""
        own = model.model.expert_weights[layer].clone()
        everybody = [torch.empty_like(own) for _ in range(GPUS)]
        dist.all_gather(everybody, own, group=group)
        source = (old[layer][None, :] == new[layer][:, None]).int().argmax(1)
        return self.mine(torch.cat(everybody)[source][None])[0]

    # ---- asynchronous ----

    def work(self):
        while True:
            self.rearrange_event.wait()
            for model in self.model_states.values():
                group = model.communicator.group
                old, new = self.ask(model)
                for layer in range(new.shape[0]):
                    if self.fault and self.fault[1:] == (self.rank, layer):
                        if self.fault[0] == "dies":
                            return
                        threading.Event().wait()
                    flag = torch.tensor([int(model.rebalanced)])
                    dist.all_reduce(flag, group=group)
                    if int(flag) != GPUS:
                        model.rebalanced = False
                        break
                    model.expert_buffer = self.moved(model, group, layer, old, new)
                    consumed = Event()
                    worker = sys.modules["vllm.distributed.eplb.async_worker"]
                    model.pending_result = worker.AsyncEplbLayerResult(
                        layer_idx=layer, new_physical_to_logical_map=new[layer],
                        consumed_event=consumed)
                    consumed.wait()

    def all_ready(self, model):
        flag = torch.tensor([int(model.pending_result is not None)])
        dist.all_reduce(flag, group=self.group)
        return int(flag) == GPUS

    def take(self, model):
        result = model.pending_result
        model.model.expert_weights[result.layer_idx] = model.expert_buffer
        model.physical_to_logical_map[result.layer_idx] = result.new_physical_to_logical_map
        if result.layer_idx == model.physical_to_logical_map.shape[0] - 1:
            model.rebalanced = False
        self.passed_on.append((model.model_name, result.layer_idx))
        model.pending_result = None
        result.consumed_event.record()

    def reshape(self, slots):
        """The group was scaled: here, each GPU got more slots."""
        table = torch.arange(slots).remainder(EXPERTS).repeat(LAYERS, 1)
        self.model.physical_to_logical_map = table
        self.model.expert_load_pass = torch.zeros(table.shape, dtype=torch.int32)
        self.model.model.expert_weights = self.mine(table).clone()


def install(group, rocm=False):
    """Makes `vllm` of it in this process."""
    parts = {
        "parallel_state": {
            "get_ep_group": lambda: types.SimpleNamespace(device_group=group),
            "get_tensor_model_parallel_rank": lambda: 0,
        },
        "eplb": {},
        "platforms": {"current_platform": types.SimpleNamespace(is_rocm=lambda: rocm)},
        "eplb.eplb_state": {
            "EplbState": type("Patched", (EplbState,), dict(EplbState.__dict__)),
            "EplbModelState": EplbModelState,
        },
        "eplb.async_worker": {"AsyncEplbLayerResult": AsyncEplbLayerResult},
        "eplb.eplb_communicator": {
            "TorchDistGlooStagedEplbCommunicator": TorchDistGlooStagedEplbCommunicator},
        "eplb.policy": {},
        "eplb.policy.abstract": {"AbstractEplbPolicy": OwnPolicy},
    }
    for name in ("vllm", "vllm.distributed"):
        sys.modules[name] = types.ModuleType(name)
    for name, contents in parts.items():
        where = "vllm" if name == "platforms" else "vllm.distributed"
        module = types.ModuleType(f"{where}.{name}")
        module.__dict__.update(contents)
        sys.modules[module.__name__] = module
    return sys.modules["vllm.distributed.eplb.eplb_state"].EplbState
