# SPDX-License-Identifier: Apache-2.0
"""One rank of the stand-in for vLLM, as scripts/engines plays those of the released one."""

import time

import vllm_like
from ranks import EXPERTS, LAYERS, SLOTS, dist, torch

from eplbd_client import Placement, PlacementId
from eplbd_client.adapters import vllm as adapter


class Stage:
    def __init__(self, options, rank):
        assert tuple(options.shape) == (LAYERS, EXPERTS, SLOTS, vllm_like.GPUS)
        stage, worker = dist.new_group(), dist.new_group()
        state_class = vllm_like.install(stage)
        adapter.patch(options.settings, options.version)
        self.engine = state_class(rank, (stage, worker), is_async=True)
        self.model = self.engine.model
        self.engine.moved = self.slowly(self.engine.moved)

    @staticmethod
    def slowly(moved):
        """An update takes so long that something can happen in the middle of it."""

        def slow(*args):
            time.sleep(0.05)
            return moved(*args)

        return slow

    @property
    def link(self):
        return self.engine.__dict__.get("_eplbd_link")

    def held(self):
        return (self.link, "before"), (self.link, "after")

    def table(self):
        return self.model.physical_to_logical_map.numpy()

    def maps(self):
        running = Placement(PlacementId(0, 0), self.table(), EXPERTS, vllm_like.GPUS)
        return running.logical_to_physical(), running.logical_replica_count()

    def count(self, tokens):
        self.model.expert_load_pass += torch.from_numpy(tokens)

    def step(self, is_dummy=False):
        self.engine.step(is_dummy=is_dummy)

    def wrong(self, layers):
        mine = self.engine.mine(self.model.physical_to_logical_map)
        layers = list(layers)
        return int((self.model.model.expert_weights[layers] != mine[layers]).sum())
