# SPDX-License-Identifier: Apache-2.0
"""One rank of a released SGLang's expert-parallel load balancing, with weights that say what they are.

The model has dense layers in front and between, as SGLang's tables do.
"""

import inspect
import os
import sys
import types

import numpy as np
import torch

import sglang_stand_ins
from eplbd_client.adapters import sglang as adapter

WIDTH = 4096  # numbers in an expert's weights
DENSE = (0, 1, 5)


def called(function, server_args, *arguments, **keys):
    """0.5.18 passes its settings to everything, the later ones have them in a place of their own."""
    if "server_args" in inspect.signature(function).parameters:
        return function(server_args, *arguments, **keys)
    return function(*arguments, **keys)


class Stage:
    def __init__(self, options, rank):
        os.environ["SGLANG_EXPERT_LOCATION_UPDATER_CANARY"] = "true"
        shape = options.shape
        self.shape, self.rank = shape, rank
        layers = shape.layers + len(DENSE)
        self.ids = [layer for layer in range(layers) if layer not in DENSE]
        settings = types.SimpleNamespace(
            expert_distribution_recorder_mode="stat", expert_distribution_recorder_buffer_size=50,
            moe_a2a_backend=options.a2a, deepep_mode="normal", device="cpu", ep_size=shape.gpus,
            tp_size=shape.gpus, nnodes=1, tp_rank=rank, ep_num_redundant_experts=shape.slots - shape.experts,
            elastic_ep_initial_size=None, elastic_ep_backend=None, ep_join_mode=None,
            ep_join_rank_offset=0, ep_dispatch_algorithm="dynamic", eplb_algorithm="auto",
            eplb_rebalance_layers_per_chunk=options.layers_per_chunk, load_format="auto",
            eplb_rebalance_num_iterations=options.interval, model_path="",
            eplb_min_rebalancing_utilization_threshold=1.0, init_expert_location="trivial",
            enable_two_batch_overlap=False, expert_balancedness_report_mode=None,
            should_report_expert_balancedness=lambda: False, chunked_prefill_size=64)
        model = types.SimpleNamespace(
            get_model_config_for_expert_location=lambda _: types.SimpleNamespace(
                num_layers=layers, num_logical_experts=shape.experts, num_groups=None))
        sglang_stand_ins.install(options.files, settings, model)
        from sglang.srt.eplb import eplb_manager, expert_distribution, expert_location
        from sglang.srt.eplb.expert_location_updater import ExpertLocationUpdater

        if options.settings is None:
            adapter.use_library("incremental")
        else:
            adapter.patch(options.settings, options.version)
        config = types.SimpleNamespace(hf_config=None)
        metadata_class = expert_location.ExpertLocationMetadata
        self.metadata = called(metadata_class.init_trivial, settings, config, moe_ep_rank=rank)
        expert_location.set_global_expert_location_metadata(self.metadata)
        init = expert_distribution.ExpertDistributionRecorder.init_new
        self.recorder = called(init, settings, self.metadata, rank)
        expert_distribution.set_global_expert_distribution_recorder(self.recorder)
        self.weights = {}
        for layer in self.ids:
            tags = self.tags(layer)
            self.weights[layer] = [tags.repeat(1, WIDTH), -tags.repeat(1, 7)]
        parts = {
            "server_args": settings, "model_config": config, "ps": settings,
            "get_model": lambda: types.SimpleNamespace(routed_experts_weights_of_layer=self.weights),
            "get_expert_location_updater": (lambda updater: lambda: updater)(ExpertLocationUpdater()),
            "get_expert_backup_client": lambda: None,
            "get_weight_updater": lambda: types.SimpleNamespace(update_weights_from_disk=None),
        }
        wanted = inspect.signature(eplb_manager.EPLBManager).parameters
        self.manager = eplb_manager.EPLBManager(**{k: v for k, v in parts.items() if k in wanted})
        self.passes = 0

    def tags(self, layer):
        own = self.metadata.physical_to_logical_map[layer].reshape(self.shape.gpus, -1)[self.rank]
        return (own + self.shape.experts * layer).float()[:, None]

    @property
    def link(self):
        return self.manager.__dict__.get("_eplbd_link")

    def held(self):
        """What of the adapter's runs in a step, around SGLang's own."""
        return (self.link, "before"), (self.link.session, "report"), (self.link._tap.tally, "add")

    def policy_calls(self):
        """The policy in process, which SGLang asks between two passes."""
        return ((sys.modules["sglang.srt.eplb.eplb_algorithms"], "rebalance_experts"),)

    def table(self):
        return self.metadata.physical_to_logical_map.numpy()[self.ids]

    def maps(self):
        """What routing goes by: [layers, experts, X] and [layers, experts]."""
        to_all, valid = (
            self.metadata.logical_to_all_physical_map, self.metadata.logical_to_all_physical_map_num_valid)
        return to_all.numpy()[self.ids], valid.numpy()[self.ids]

    def count(self, tokens):
        """Tokens [layers, slots] of this forward pass, as select_experts notes them."""
        self.tokens = tokens

    def step(self, is_dummy=False):
        self.passes += 1
        with self.recorder.with_forward_pass(self.passes, None):
            for row, layer in enumerate(self.ids):
                ids = np.repeat(np.arange(self.shape.slots), 0 if is_dummy else self.tokens[row])
                with self.recorder.with_current_layer(layer):
                    self.recorder.on_select_experts(torch.from_numpy(ids)[:, None])
        self.manager.on_forward_pass_end()

    def wrong(self, layers):
        """Slots of this rank, in `layers`, whose weights are not what the map says."""
        found = 0
        for row in layers:
            tags = self.tags(self.ids[row])
            first, second = self.weights[self.ids[row]]
            right = (first == tags).all(dim=1) & (second == -tags).all(dim=1)
            found += int((~right).sum())
        return found
