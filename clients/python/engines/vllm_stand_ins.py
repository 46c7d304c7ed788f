# SPDX-License-Identifier: Apache-2.0
"""What a released vLLM's vllm/distributed/eplb needs around it, in place of the real thing.

Its files are run as they are in the wheel. The rest of vLLM wants a GPU, its compiled kernels and a
hundred packages, so these modules stand in for it: the configuration and the process groups, which
the caller makes of gloo, names that only annotate, and a log.
"""

import contextlib
import logging
import sys
import types

import torch

from stand_in import StandIn

_MODULES = (
    "config", "config.utils", "config.parallel", "distributed.parallel_state",
    "distributed.stateless_coordinator", "distributed.utils", "distributed.nixl_utils",
    "distributed.device_communicators", "distributed.device_communicators.pynccl",
    "distributed.device_communicators.pynccl_wrapper", "logger", "model_executor",
    "model_executor.models", "model_executor.models.interfaces", "platforms", "utils",
    "utils.gpu_sync_debug", "utils.torch_utils",
)


class Stream:
    def __init__(self, *_, **__):
        pass

    def synchronize(self):
        pass


class Event(Stream):
    def record(self, stream=None):
        pass

    def wait(self, stream=None):
        pass

    def query(self):
        return True

    def elapsed_time(self, other):
        return 0.0


@contextlib.contextmanager
def _nothing(*_, **__):
    yield


def run_without_accelerator():
    """PyTorch's streams and events need an accelerator: on a CPU, where each call is done when it
    returns, they have nothing to do."""
    torch.Stream = torch.cuda.Stream = Stream
    torch.Event = torch.cuda.Event = Event
    torch.cuda.stream = _nothing
    torch.cuda.current_stream = torch.accelerator.current_stream = Stream
    torch.accelerator.set_device_index = torch.accelerator.set_stream = lambda *_: None
    torch.accelerator.current_accelerator = lambda: torch.device("cpu")
    torch.accelerator.current_device_index = lambda: 0


def install(files, coordinator, rocm=False):
    """`files`: where the wheel was unpacked. `coordinator` is the group of each get_..._group()."""
    made = {"": types.ModuleType("vllm"), "distributed": types.ModuleType("vllm.distributed")}
    made[""].__path__ = [f"{files}/vllm"]
    made["distributed"].__path__ = [f"{files}/vllm/distributed"]
    for name in _MODULES:
        made[name] = StandIn(f"vllm.{name}")
    for name, module in made.items():
        sys.modules[f"vllm.{name}".rstrip(".")] = module
        if name:
            parent, _, own = name.rpartition(".")
            setattr(made[parent], own, module)
    made["config.parallel"].EPLBPolicyOption = __import__("typing").Literal["default"]
    made["config.utils"].compute_hash_cached = lambda config: config.compute_hash()
    state = made["distributed.parallel_state"]
    state.get_ep_group = lambda: coordinator["ep"]
    state.get_eplb_group = lambda: coordinator["eplb"]
    state.get_node_count = lambda: 1
    state.get_tensor_model_parallel_rank = lambda: 0
    state.is_local_first_rank = lambda: False
    made["distributed.nixl_utils"].NixlWrapper = None
    logger = logging.getLogger("vllm")
    for name in ("info_once", "warning_once"):
        setattr(logger, name, getattr(logger, name.removesuffix("_once")))
    made["logger"].init_logger = lambda name: logger
    made["platforms"].current_platform = types.SimpleNamespace(
        is_rocm=lambda: rocm, is_cuda_alike=lambda: False, is_cuda=lambda: False,
        is_xpu=lambda: False)
    made["utils.gpu_sync_debug"].gpu_sync_allowed = _nothing
    made["utils.torch_utils"].PIN_MEMORY = False
    run_without_accelerator()
