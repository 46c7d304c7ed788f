# SPDX-License-Identifier: Apache-2.0
"""Placements as the files that engines start from. The daemon writes the same ones:
`curl 'http://HOST:9877/api/v1/placement?format=json'` (trtllm, vllm-ascend).

The trap is in the layer's number. The wire counts MoE layers from 0. SGLang has a row for every
layer of the model, dense ones too; TensorRT-LLM names the model's layers; vllm-ascend counts MoE
layers. `layer_ids` are the model's numbers of the MoE layers, as in the daemon's configuration.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np

from ..placement import Array, Placement


def _checked(placement: Placement, layer_ids: Sequence[int]) -> list[int]:
    ids = [int(layer) for layer in layer_ids]
    if len(ids) != placement.layers or sorted(set(ids)) != ids or min(ids, default=0) < 0:
        raise ValueError(f"layer_ids: {placement.layers} growing numbers, please")
    if placement.has_empty_slots:
        raise ValueError("a GPU is down: no engine's file can say that a slot is empty")
    return ids


def every_layer(placement: Placement, layer_ids: Sequence[int], model_layers: int = 0) -> Array:
    """[model layers, slots]: dense layers hold the initial map, which nobody looks at."""
    ids = _checked(placement, layer_ids)
    rows = max(model_layers, ids[-1] + 1)
    initial = np.arange(placement.slots, dtype=np.int32) % placement.logical_experts
    table = np.tile(initial, (rows, 1))
    table[ids] = placement.physical_to_logical
    return table


def moe_layers(table: Array, layer_ids: Sequence[int]) -> Array:
    """The MoE layers' rows of something that has a row for every layer of the model."""
    array = np.asarray(table)
    ids = [int(layer) for layer in layer_ids]
    if ids and max(ids) >= array.shape[0]:
        raise ValueError(f"layer {max(ids)} of {array.shape[0]}: counted without dense layers?")
    return array[ids]


def sglang(placement: Placement, layer_ids: Sequence[int], model_layers: int = 0) -> str:
    """For --init-expert-location."""
    table = every_layer(placement, layer_ids, model_layers)
    return json.dumps({"physical_to_logical_map": table.tolist()}) + "\n"


def tensorrt_llm(placement: Placement, layer_ids: Sequence[int]) -> str:
    """For moe_config.load_balancer: a YAML file."""
    lines = [f"num_slots: {placement.slots}", "layer_updates_per_iter: 0",
             "initial_global_assignments:"]
    for layer, row in zip(_checked(placement, layer_ids), placement.physical_to_logical.tolist()):
        lines.append(f"  {layer}: {row}")
    return "\n".join(lines) + "\n"


def vllm_ascend(placement: Placement) -> str:
    """For additional_config.eplb_config.expert_map_path."""
    _checked(placement, range(placement.layers))
    per_gpu = placement.physical_to_logical.reshape(placement.layers, placement.gpus, -1)
    layers = [
        {
            "layer_id": layer,
            "device_count": placement.gpus,
            "device_list": [
                {"device_id": gpu, "device_expert": experts} for gpu, experts in enumerate(row)
            ],
        }
        for layer, row in enumerate(per_gpu.tolist())
    ]
    return json.dumps({"moe_layer_count": placement.layers, "layer_list": layers}) + "\n"
