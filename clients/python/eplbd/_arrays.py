# SPDX-License-Identifier: Apache-2.0
"""What users hand in, as arrays that C reads; what C wrote, as the kind that came in."""

from __future__ import annotations

import operator
import sys
from typing import Any, Optional, Sequence, Tuple

import numpy as np


def is_torch(value: Any) -> bool:
    torch = sys.modules.get("torch")  # whoever has a tensor has imported it
    return torch is not None and isinstance(value, torch.Tensor)


def _as_numpy(value: Any, name: str) -> np.ndarray:
    if is_torch(value):
        # numpy has no bfloat16, and float8 only by way of it.
        tensor = value.detach().cpu()
        return (tensor.double() if tensor.is_floating_point() else tensor).numpy()
    try:
        return np.asarray(value)
    except Exception as error:
        raise ValueError(f"{name}: is no array: {error}") from None


def _numbers(value: Any, name: str, kinds: str, what: str) -> np.ndarray:
    array = _as_numpy(value, name)
    if array.dtype.kind not in kinds:
        raise ValueError(f"{name}: has dtype {array.dtype}, wants {what}")
    return array


def _check_shape(array: np.ndarray, name: str, shape: Sequence[Optional[int]], words: str) -> None:
    fits = array.ndim == len(shape) and all(w in (None, n) for w, n in zip(shape, array.shape))
    if not fits or 0 in array.shape:
        wanted = ", ".join("any" if n is None else str(n) for n in shape)
        raise ValueError(f"{name}: has shape {list(array.shape)}, wants [{words}] = [{wanted}]")


def loads(value: Any, name: str, shape: Tuple[Optional[int], ...] = (None, None)) -> np.ndarray:
    """[layers, logical_experts] of any integer or float dtype, as float64."""
    array = _numbers(value, name, "iuf", "integers or floats")
    _check_shape(array, name, shape, "layers, logical_experts")
    return np.ascontiguousarray(array, np.float64)


def counts(value: Any, name: str, shape: Tuple[int, int]) -> np.ndarray:
    """[layers, logical_experts] whole numbers from 0 to 2^32 - 1, as uint32."""
    array = _numbers(value, name, "iuf", "integers")
    _check_shape(array, name, shape, "layers, logical_experts")
    whole = np.ascontiguousarray(array)
    with np.errstate(invalid="ignore"):
        outside = ~((whole >= 0) & (whole < 2**32)) | (whole != np.floor(whole))
    if outside.any():
        layer, expert = np.argwhere(outside)[0]
        raise ValueError(
            f"{name}: layer {layer}, expert {expert} is {whole[layer, expert]}: "
            "tokens are whole numbers from 0 to 2^32 - 1"
        )
    return whole.astype(np.uint32)


def placement(value: Any, name: str, shape: Tuple[Optional[int], Optional[int]]) -> np.ndarray:
    """[layers, slots] logical experts, as int32."""
    array = _numbers(value, name, "iu", "integers")
    _check_shape(array, name, shape, "layers, slots")
    if array.size and (array.min() < -1 or array.max() >= 2**31):
        raise ValueError(f"{name}: holds {array.min()} to {array.max()}, which are no experts")
    return np.ascontiguousarray(array, np.int32)


def speeds(value: Any, gpus: int) -> Optional[np.ndarray]:
    if value is None:
        return None
    array = _numbers(value, "gpu_speeds", "iuf", "numbers")
    _check_shape(array, "gpu_speeds", (gpus,), "gpus")
    return np.ascontiguousarray(array, np.float64)


def gpu_numbers(value: Any, name: str) -> np.ndarray:
    array = _as_numpy(value, name)
    if array.ndim != 1:
        raise ValueError(f"{name}: has {array.ndim} dimensions, wants a list of GPUs")
    if not array.size:
        return np.empty(0, np.int32)
    gpus = np.unique(_numbers(array, name, "iu", "integers"))
    if gpus[0] < 0 or gpus[-1] >= 2**31:
        raise ValueError(f"{name}: holds {gpus[0]} to {gpus[-1]}, which are no GPUs")
    return gpus.astype(np.int32)


def whole(value: Any, name: str, least: int = 0, most: int = 2**31 - 1) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        raise ValueError(f"{name}: is {value!r}, wants a whole number") from None
    if not least <= number <= most:
        raise ValueError(f"{name}: is {number}, must be {least} to {most}")
    return number


def real(value: Any, name: str) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{name}: is {value!r}, wants a number") from None


def choice(value: Any, name: str, values: Sequence[str]) -> int:
    if not isinstance(value, str) or value not in values:
        raise ValueError(f"{name}: is {value!r}, must be one of {', '.join(values)}")
    return list(values).index(value)


def like(array: np.ndarray, model: Any) -> Any:
    """int64, as torch where `model` is torch: on the CPU, as the engines' own functions answer."""
    result = array.astype(np.int64)
    return sys.modules["torch"].from_numpy(result) if is_torch(model) else result
