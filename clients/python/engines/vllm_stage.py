# SPDX-License-Identifier: Apache-2.0
"""One rank of a released vLLM's expert-parallel load balancing, with weights that say what they are."""

import threading
import time
import types

import torch
import torch.distributed as dist

import vllm_stand_ins
from eplbd_client.adapters import vllm as adapter

WIDTH = 4096  # numbers in an expert's weights


class Model:
    """A MixtureOfExperts: each slot's weights are full of its layer's and its expert's number."""

    def __init__(self, shape, rank, layer_state_class, table):
        self.num_moe_layers = shape.layers
        self.num_logical_experts = self.num_routed_experts = shape.experts
        self.num_physical_experts = shape.slots
        self.num_redundant_experts = shape.slots - shape.experts
        self.num_local_physical_experts = shape.slots // shape.gpus
        self.num_expert_groups = 1
        own = table[:, rank * self.num_local_physical_experts :][:, : self.num_local_physical_experts]
        tags = own + shape.experts * torch.arange(shape.layers)[:, None]
        self.expert_weights = [
            [row[:, None].repeat(1, WIDTH).float(), -row[:, None].repeat(1, 7).float()] for row in tags
        ]
        self.moe_layers = [
            types.SimpleNamespace(eplb_state=layer_state_class()) for _ in range(shape.layers)
        ]

    def set_eplb_state(self, load, logical_to_physical, replica_count):
        self.maps = logical_to_physical, replica_count
        for layer, moe in enumerate(self.moe_layers):
            moe.eplb_state.set_layer_state(layer, load, logical_to_physical, replica_count)


class Stage:
    def __init__(self, options, rank):
        self.shape, self.rank = options.shape, rank
        world = dist.group.WORLD
        both = [dist.new_group(), dist.new_group(), dist.new_group()]

        def coordinator(device, cpu):
            return types.SimpleNamespace(
                device_group=device, cpu_group=cpu, world_size=options.shape.gpus, rank_in_group=rank)

        groups = {"ep": coordinator(world, both[0]), "eplb": coordinator(both[1], both[2])}
        vllm_stand_ins.install(options.files, groups, rocm=options.rocm)
        from vllm.distributed.eplb import eplb_state

        if options.settings is None:
            adapter.use_library("incremental")
        else:
            adapter.patch(options.settings, options.version)
        self.parallel = types.SimpleNamespace(
            eplb_config=types.SimpleNamespace(
                use_async=options.asynchronous, window_size=options.window,
                step_interval=options.interval, policy="default", communicator="torch_gloo",
                log_balancedness_interval=1000, migration_batching_enabled=options.batching),
            enable_elastic_ep=False, num_ubatches=0, data_parallel_size=options.shape.gpus)
        self.state = eplb_state.EplbState(self.parallel, torch.device("cpu"))
        table = torch.arange(self.shape.slots).remainder(self.shape.experts)
        table = table.repeat(self.shape.layers, 1)
        self.models = []
        for name in ["draft"] * options.draft + ["main"]:
            shape = self.shape if name == "main" else self.shape._replace(layers=1)
            model = Model(shape, rank, eplb_state.EplbLayerState, table[: shape.layers])
            config = types.SimpleNamespace(model=name, compute_hash=lambda name=name: name)
            self.state.add_model(model, config)
            self.models.append((model, self.state.model_states[name]))
        self.model, self.model_state = self.models[-1]
        self.state.device_index = self.state.cuda_device_index = 0  # a CPU has none
        if options.fault:
            self.hinder(options.fault)
        self.state.start_async_loop()

    def hinder(self, fault):
        """The transfer of a layer takes its time; in the second update rank 2's fails for good."""
        communicator = self.model_state.communicator
        execute, calls = communicator.execute, []

        def hindered():
            calls.append(0)
            time.sleep(0.05)
            if self.rank == 2 and len(calls) == self.shape.layers + 3 and fault == "thread-dies":
                raise RuntimeError("a fault that was ordered")
            if self.rank == 2 and len(calls) == self.shape.layers + 3 and fault == "thread-hangs":
                threading.Event().wait()
            execute()

        communicator.execute = hindered

    @property
    def link(self):
        return self.state.__dict__.get("_eplbd_link")

    def held(self):
        """What of the adapter's runs in a step, around vLLM's own."""
        return (self.link, "before"), (self.link, "after")

    def policy_calls(self):
        """The policy in process: vLLM asks it in its step where EPLB is synchronous."""
        return ((self.state.policy, "rebalance_experts"),)

    def table(self):
        return self.model_state.physical_to_logical_map.numpy()

    def maps(self):
        """What routing goes by: [layers, experts, X] and [layers, experts]."""
        return [tensor.numpy() for tensor in self.model.maps]

    def count(self, tokens):
        """Tokens [layers, slots] of this forward pass, as the router's kernel notes them."""
        for layer, moe in enumerate(self.model.moe_layers):
            if bool(moe.eplb_state.should_record_tensor):
                moe.eplb_state.expert_load_view[: tokens.shape[1]] += torch.from_numpy(tokens[layer])

    def step(self, is_dummy=False):
        self.state.step(is_dummy=is_dummy)

    def wrong(self, layers):
        """Slots of this rank, in `layers`, whose weights are not what the map says."""
        found = 0
        for layer in layers:
            first, second = self.model.expert_weights[layer]
            own = self.table()[layer].reshape(self.shape.gpus, -1)[self.rank]
            tags = torch.from_numpy(own + self.shape.experts * layer).float()[:, None]
            right = (first == tags).all(dim=1) & (second == -tags).all(dim=1)
            found += int((~right).sum())
        return found
