# SPDX-License-Identifier: Apache-2.0
"""What vLLM's CPU wheel needs to balance experts, as plugins of vLLM's: for scripts/engines --whole.

vLLM has EPLB on CUDA, ROCm and XPU alone. On a CPU its configuration refuses it, its runner does not
set it up, the kernel that maps experts to slots and counts them is left out, and the one that
computes a rank's experts takes all to be its own. These four, and PyTorch's streams, are put in its
place; everything else is vLLM's.
"""

import sys

import torch

from vllm_stand_ins import run_without_accelerator


def platform():
    """vLLM's entry point for somebody else's platform: the name of its class."""
    return f"{__name__}.CpuWithEplb"


def __getattr__(name):
    """vLLM can't be imported before it asks for the class."""
    if name != "CpuWithEplb":
        raise AttributeError(name)
    from vllm.platforms.cpu import CpuPlatform

    class CpuWithEplb(CpuPlatform):
        def is_cuda_alike(self):
            """Only where the configuration asks, of EPLB."""
            return sys._getframe(1).f_globals.get("__name__") == "vllm.config.parallel"

    return CpuWithEplb


def map_and_record(
    topk_ids, expert_load_view, logical_to_physical_map, logical_replica_count, record_enabled,
    num_unpadded_tokens=None,
):
    """As the kernel of vLLM's base_router.py does: replicas by a hash of the token's place."""
    ids = topk_ids.long()
    tokens = torch.arange(ids.shape[0])[:, None]
    replica = (tokens * 2654435769 & 0xFFFFFFFF) % logical_replica_count[ids].clamp(min=1)
    slots = logical_to_physical_map[ids, replica]
    if bool(record_enabled):
        counted = slots[: None if num_unpadded_tokens is None else int(num_unpadded_tokens)].flatten()
        ones = torch.ones(counted.shape, dtype=expert_load_view.dtype)
        expert_load_view.scatter_add_(0, counted.long(), ones)
    return slots.to(topk_ids.dtype)


def with_eplb(load_model):
    """The CPU's runner loads a model without what the GPU's does for EPLB."""

    def load(self, *args, **keys):
        from vllm.distributed.eplb.eplb_state import EplbState
        from vllm.model_executor.models.interfaces import get_mixture_of_experts_model

        load_model(self, *args, **keys)
        run_without_accelerator()
        self._moe_model = get_mixture_of_experts_model(self.model)
        self.eplb_state = EplbState(self.parallel_config, self.device)
        self.eplb_state.device_index = 0
        self.eplb_state.add_model(self._moe_model, self.model_config)
        if self.eplb_state.is_async:
            self.eplb_state.start_async_loop()

    return load


def with_expert_map(apply):
    """The CPU's kernel numbers a rank's slots from 0, and takes no others."""

    def own(self, output, hidden_states, w1, w2, topk_weights, topk_ids, activation,
            global_num_experts, expert_map, *rest, **keys):
        slots = expert_map[topk_ids.long()]
        weights = torch.where(slots < 0, 0.0, topk_weights).contiguous()
        slots = slots.clamp(min=0).to(torch.int32).contiguous()
        return apply(self, output, hidden_states, w1, w2, weights, slots, activation,
                     global_num_experts, expert_map, *rest, **keys)

    return own


def register():
    """vLLM's entry point in every process, perhaps several times."""
    from vllm.model_executor.layers.fused_moe.experts.cpu_moe import CPUUnquantizedExperts
    from vllm.model_executor.layers.fused_moe.router import base_router
    from vllm.v1.worker.cpu_model_runner import CPUModelRunner

    if base_router.eplb_map_to_physical_and_record is map_and_record:
        return
    base_router.eplb_map_to_physical_and_record = map_and_record
    CPUModelRunner.load_model = with_eplb(CPUModelRunner.load_model)
    CPUUnquantizedExperts.apply = with_expert_map(CPUUnquantizedExperts.apply)
