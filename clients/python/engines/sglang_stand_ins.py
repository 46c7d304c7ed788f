# SPDX-License-Identifier: Apache-2.0
"""What a released SGLang's sglang/srt/eplb needs around it, in place of the real thing.

Its files are run as they are in the wheel. The rest of SGLang wants a GPU, its kernels and a hundred
packages, so these modules stand in for it: the settings, which all of its accessors share here,
names that only annotate, and parts that no run touches (elastic groups, prefill, metrics).
"""

import contextlib
import os
import sys
import types

import torch

from stand_in import StandIn

_MODULES = (
    "arg_groups", "configs", "configs.model_config", "elastic_ep", "elastic_ep.elastic_ep",
    "layers", "layers.moe", "model_executor", "model_executor.forward_batch_info",
    "model_executor.model_runner_components", "model_executor.model_runner_components.moe_ep_setup",
    "model_executor.runner_utils", "model_executor.runner_utils.capture_mode", "model_loader",
    "observability", "observability.metrics_collector", "runtime_context", "server_args", "utils",
)


class Withable:
    value = None

    @classmethod
    def __class_getitem__(cls, _):
        return cls

    @contextlib.contextmanager
    def with_value(self, value):
        self.value = value
        try:
            yield
        finally:
            self.value = None


def install(files, settings, architecture):
    """`files`: where the wheel was unpacked. `architecture` says how many layers and experts."""
    base = f"{files}/sglang"
    made = {}
    for name, path in {"sglang": base, "sglang.srt": f"{base}/srt"}.items():
        made[name] = types.ModuleType(name)
        made[name].__path__ = [path]
    for name in _MODULES:
        made[f"sglang.srt.{name}"] = StandIn(f"sglang.srt.{name}")
    sys.modules.update(made)
    srt = {name.removeprefix("sglang.srt."): module for name, module in made.items()}
    srt["elastic_ep.elastic_ep"].ElasticEPStateManager = types.SimpleNamespace(instance=lambda: None)
    srt["elastic_ep.elastic_ep"].elastic_expanded_world_enabled = lambda: False
    srt["model_executor.model_runner_components.moe_ep_setup"].init_lplb_solvers = lambda **_: None
    srt["model_loader"].get_model_architecture = lambda config: (architecture, None)
    context = srt["runtime_context"]
    everything = types.SimpleNamespace(moe=settings, overlap=settings)
    context.get_exec = lambda: everything
    context.get_parallel = context.get_model = context.get_schedule = lambda: settings
    context.get_device = context.get_server_args = lambda: settings
    context.get_platform = lambda: types.SimpleNamespace(is_hip=False)
    resources = types.SimpleNamespace(expert_distribution_recorder=None, expert_location_metadata=None)
    context.get_resources = lambda: resources
    context.reports_expert_balancedness = lambda: False
    context.logs_expert_balancedness_to_server_log = lambda: False
    utils = srt["utils"]
    utils.Withable = Withable
    utils.get_device = lambda: "cpu"
    utils.get_bool_env_var = lambda name, default="false": os.environ.get(name, default) == "true"
    utils.get_int_env_var = lambda name, default=0: int(os.environ.get(name, default))
    device = types.SimpleNamespace(
        synchronize=lambda: None, empty_cache=lambda: None, is_current_stream_capturing=lambda: False)
    torch.get_device_module = lambda *_: device
