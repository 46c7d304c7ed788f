# SPDX-License-Identifier: Apache-2.0
"""Traces and placements as people and engines keep them.

Kinds are told by content: .npy, .npz, JSON, JSON Lines, tables (CSV and its like), gzip of any of
them, which `eplbctl` reads as well; and PyTorch's .pt, with torch: what SGLang's expert distribution
recorder dumps. `python3 -m eplbd convert FILE OUT.npy` makes a .npy of each.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import zlib
from typing import Any, List, Optional, Sequence, Union

import numpy as np

from . import _table

_File = Union[str, "os.PathLike[str]"]
_PREFERRED = ("counts", "loads", "logical_count", "physical_to_logical_map")
_UNREAD = (  # how they begin, what they are, how to convert them
    (b"PAR1", "Parquet: pandas.read_parquet(FILE).to_csv(...)"),
    (b"\x89HDF", "HDF5: numpy.save('FILE.npy', h5py.File(FILE)[NAME])"),
    (b"\x28\xb5\x2f\xfd", "packed by zstd: zstd -d FILE"),
    (b"\xfd7zXZ", "packed by xz: xz -d FILE"),
    (b"BZh", "packed by bzip2: bzip2 -d FILE"),
)


def read_trace(file: _File) -> np.ndarray:
    """Loads [steps, layers, logical_experts]; a load without steps is one step.

    ValueError: FILE: what is wrong and where. Layers are MoE layers as they stand in the file;
    SGLang's dumps have rows of zeros for dense layers.
    """
    return _read(file, _trace)


def read_placement(file: _File, layer_ids: Optional[Sequence[int]] = None) -> np.ndarray:
    """[layers, slots] logical experts, int32, from what SGLang, TensorRT-LLM (with PyYAML) and
    vllm-ascend read, and from arrays and tables.

    layer_ids: the model's own numbers of its MoE layers; they choose among the rows of a file that
    has one for every layer of the model.
    """
    return _read(file, lambda content: _placement(content, layer_ids))


def _read(file: _File, parse: Any) -> np.ndarray:
    try:
        with open(file, "rb") as stream:
            content = _unpacked(stream.read())
        return parse(content)  # type: ignore[no-any-return]
    except (ValueError, EOFError, zlib.error, gzip.BadGzipFile) as problem:
        raise ValueError(f"{os.fspath(file)}: {problem}") from None


def _unpacked(content: bytes) -> Any:
    """An array, what torch has saved, or text."""
    if content.startswith(b"\x1f\x8b"):
        content = gzip.decompress(content)
    for begin, what in _UNREAD:
        if content.startswith(begin):
            raise ValueError(f"it is {what}")
    if content.startswith(b"PK\x03\x04"):
        return _archive(content)
    if content.startswith(b"\x80"):
        return _torch_file(content)
    if content.startswith(b"\x93NUMPY"):
        return np.load(io.BytesIO(content), allow_pickle=False)
    if b"\0" in content[:4096]:
        raise ValueError("it is binary, and neither .npy, .npz, .pt nor gzip")
    text = content.decode(errors="replace").strip()
    if not text:
        raise ValueError("it is empty")
    return text


def _archive(content: bytes) -> Any:
    import zipfile

    try:
        names = zipfile.ZipFile(io.BytesIO(content)).namelist()
    except zipfile.BadZipFile as problem:
        raise ValueError(f"its archive is damaged or truncated: {problem}") from None
    if any(name.endswith("data.pkl") for name in names):
        return _torch_file(content)
    held = [name[:-4] for name in names if name.endswith(".npy")]
    if not held:
        raise ValueError("it is a ZIP archive, but no .npz: no array is in it")
    chosen = held if len(held) == 1 else [name for name in held if name in _PREFERRED]
    if not chosen:
        raise ValueError(
            f"it holds the arrays {', '.join(held)}, of which none is called {', '.join(_PREFERRED)}: save one alone"
        )
    try:
        return np.load(io.BytesIO(content), allow_pickle=False)[chosen[0]]
    except zipfile.BadZipFile as problem:
        raise ValueError(f"its archive is damaged: {problem}") from None


def _torch_file(content: bytes) -> Any:
    try:
        import torch
    except ImportError:
        raise ValueError("it is a PyTorch file: it takes torch to read it (pip install torch)") from None
    try:
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as problem:
        raise ValueError(f"torch does not read it: {str(problem).splitlines()[0]}") from None


# ---- Loads ----


def _trace(content: Any) -> np.ndarray:
    if isinstance(content, str):
        loads = _text_loads(content)
    elif isinstance(content, dict):
        loads = _sglang_dump(content)
    else:
        loads = np.asarray(content)
    if loads.dtype.kind not in "iuf":
        raise ValueError(f"it holds {loads.dtype}, not numbers")
    if loads.ndim == 2:
        loads = loads[None]
    if loads.ndim != 3 or 0 in loads.shape:
        raise ValueError(f"it has shape {list(loads.shape)}; [layers, experts] or [steps, layers, experts] needed")
    wrong = ~np.isfinite(loads) | (loads < 0)
    if wrong.any():
        step, layer, expert = np.argwhere(wrong)[0]
        value = loads[step, layer, expert]
        raise ValueError(f"step {step}, layer {layer}, expert {expert}: the load {value} is not a number >= 0")
    return loads


def _text_loads(text: str) -> np.ndarray:
    if text[0] not in "{[":
        if not _table.looks_like_table(text):
            raise ValueError("it is text, but neither JSON, JSON Lines nor a table of numbers (CSV)")
        return _table.read_loads(text)
    steps = _json(text)
    if isinstance(steps, list):
        return _nested(steps, "the list")
    for key in ("physical_to_logical_map", "logical_to_physical_map"):
        if key in steps:
            raise ValueError(f"it holds a placement ({key}): there, logical_count may be replicas, not loads")
    if ("load_history" in steps) == ("logical_count" in steps):
        raise ValueError("it needs one of load_history (ADRS) and logical_count (SGLang), or to be a bare list")
    if "logical_count" in steps:
        return _nested(steps["logical_count"], "logical_count")
    return _nested([_step_of(step, f"load_history[{i}]") for i, step in enumerate(steps["load_history"])], "load_history")


def _step_of(step: Any, name: str) -> Any:
    if isinstance(step, dict):
        step = step.get("logical_expert_load", step.get("logical_count"))
    if not isinstance(step, list):
        raise ValueError(f"{name}: a list, logical_expert_load or logical_count expected")
    return step


def _json(text: str) -> Any:
    """One document, or, of several lines that are one each, the list of their steps."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as whole:
        problem = f"line {whole.lineno}: it is no JSON ({whole.msg})"
    steps: List[Any] = []
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                steps.append(_step_of(json.loads(line), f"line {number}"))
            except json.JSONDecodeError as one:
                raise ValueError(f"line {number}: it is no JSON ({one.msg})" if steps else problem) from None
    return steps


def _nested(values: Any, name: str) -> np.ndarray:
    try:
        return np.array(values, np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{name}: rows of numbers of one length expected") from None


def _sglang_dump(dump: Any) -> np.ndarray:
    """Of mode stat: logical_count. Of the modes that keep each pass: their records."""
    if "logical_count" in dump:
        return np.asarray(dump["logical_count"])
    if "records" not in dump or "last_physical_to_logical_map" not in dump:
        raise ValueError(f"it holds {', '.join(map(str, dump))}: no dump of SGLang's expert distribution recorder")
    maps = np.asarray(dump["last_physical_to_logical_map"])
    passes = []
    for record in sorted(dump["records"], key=lambda record: record["forward_pass_id"]):
        counted = np.asarray(record["global_physical_count"])
        if counted.shape != maps.shape:
            raise ValueError(f"a record counts {list(counted.shape)} slots, its map has {list(maps.shape)}")
        loads = np.zeros((len(maps), int(maps.max()) + 1), np.int64)
        for layer, row in enumerate(maps):
            np.add.at(loads[layer], row[row >= 0], counted[layer][row >= 0])
        passes.append(loads)
    return np.array(passes)


# ---- Placements ----


def _placement(content: Any, layer_ids: Optional[Sequence[int]]) -> np.ndarray:
    if isinstance(content, str):
        maps = _text_placement(content, layer_ids)
    elif isinstance(content, dict):
        maps = next((np.asarray(content[k]) for k in ("physical_to_logical_map", "last_physical_to_logical_map") if k in content), None)
        if maps is None:
            raise ValueError("it has no physical_to_logical_map")
    else:
        maps = np.asarray(content)
    if maps.ndim != 2 or maps.dtype.kind not in "iuf" or (maps != np.floor(maps)).any():
        raise ValueError("it is no placement: [layers, slots] experts' numbers are")
    if layer_ids is not None and len(maps) != len(layer_ids) and len(maps) == max(layer_ids) + 1:
        maps = maps[list(layer_ids)]
    return maps.astype(np.int32)


def _text_placement(text: str, layer_ids: Optional[Sequence[int]]) -> np.ndarray:
    if text[0] in "{[":
        document = json.loads(text)
        if isinstance(document, list):
            return _nested(document, "the list")
        if "layer_list" in document:  # vllm-ascend
            layers = [[d["device_expert"] for d in layer["device_list"]] for layer in document["layer_list"]]
            return _nested([sum(devices, []) for devices in layers], "layer_list")
        if "physical_to_logical_map" not in document:
            raise ValueError("it has neither physical_to_logical_map (SGLang) nor layer_list (vllm-ascend)")
        return _nested(document["physical_to_logical_map"], "physical_to_logical_map")
    if _table.looks_like_table(text):
        return _table.read_table(text)
    return _trtllm(text, layer_ids)


def _trtllm(text: str, layer_ids: Optional[Sequence[int]]) -> np.ndarray:
    try:
        import yaml
    except ImportError:
        raise ValueError("it is YAML: it takes PyYAML to read it (pip install pyyaml)") from None
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as problem:
        raise ValueError(f"neither .npy, JSON, a table nor YAML: {problem}") from None
    if isinstance(document, dict) and "num_slots" in document and "initial_global_assignments" not in document:
        raise ValueError(
            "it is an online configuration of TensorRT-LLM, without initial_global_assignments: the engine "
            "begins with the initial placement and balances by itself. There is no placement in it"
        )
    layers = document.get("initial_global_assignments") if isinstance(document, dict) else None
    if not isinstance(layers, dict):
        raise ValueError("it has no initial_global_assignments (TensorRT-LLM)")
    chosen = sorted(layers) if layer_ids is None else layer_ids
    for layer in chosen:
        if layer not in layers:
            raise ValueError(f"initial_global_assignments has no layer {layer}")
    return _nested([layers[layer] for layer in chosen], "initial_global_assignments")
