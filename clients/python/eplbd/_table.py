# SPDX-License-Identifier: Apache-2.0
"""Tables of numbers as text, as `eplbctl` reads them (docs/eplbctl.md, "Load and trace files")."""

from __future__ import annotations

import math
from typing import Dict, List, Optional, Tuple

import numpy as np

_KEYS = {
    "step": "step", "time": "step", "layer": "layer", "layer_id": "layer",
    "expert": "expert", "expert_id": "expert", "logical_expert": "expert",
}
_Line = Tuple[int, List[str]]


def _number(cell: str) -> Optional[float]:
    try:
        return float(cell)
    except ValueError:
        return None


def _lines(text: str) -> List[_Line]:
    """Those with something in them, with their numbers, cut into cells."""
    found: List[_Line] = []
    separator: Optional[str] = None
    for number, line in enumerate(text.lstrip("\ufeff").split("\n"), 1):
        line = line.strip(" \t\r") if separator != "\t" else line.strip("\r")
        if not line.strip() or line.startswith("#"):
            continue
        if separator is None:
            separator = next((c for c in ",;\t" if c in line), " ")
        cells = line.split() if separator == " " else line.split(separator)
        found.append((number, [cell.strip(" \t\r").strip('"') for cell in cells]))
    return found


def looks_like_table(text: str) -> bool:
    lines = _lines(text[:65536])
    if not lines:
        return False
    cells = lines[0][1]
    if all(_number(cell) is not None for cell in cells):
        return True
    return len(cells) > 1 and not any(c in cell for cell in cells for c in ":{}[]")


def _rows(text: str) -> Tuple[Optional[List[str]], List[Tuple[int, List[float]]]]:
    """The heading, and numbers with their lines."""
    lines = _lines(text)
    heading = lines[0][1]
    if all(_number(cell) is not None for cell in heading):
        heading = None
    rows = []
    for number, cells in lines[1:] if heading else lines:
        if len(cells) != len(lines[0][1]):
            raise ValueError(f"line {number}: {len(cells)} columns, those before it have {len(lines[0][1])}")
        values = [_number(cell) for cell in cells]
        if None in values:
            at = values.index(None)
            raise ValueError(f"line {number}: column {at + 1}: a number expected, found {cells[at][:40]!r}")
        rows.append((number, values))
    if not rows:
        raise ValueError("it has a heading and nothing below")
    return heading, rows  # type: ignore[return-value]


def read_table(text: str) -> np.ndarray:
    """[lines, columns] as it stands, a heading skipped."""
    return np.array([values for _, values in _rows(text)[1]])


def read_loads(text: str) -> np.ndarray:
    """[steps, layers, experts]."""
    heading, rows = _rows(text)
    names = [_KEYS.get(name.lower(), "") for name in heading or [""] * len(rows[0][1])]
    for key in ("step", "layer", "expert"):
        if names.count(key) > 1:
            raise ValueError(f"two columns say the {key}")
    values_at = [i for i, name in enumerate(names) if not name]
    cell_wise = "expert" in names
    if cell_wise and (len(values_at) != 1 or "layer" not in names):
        raise ValueError("with a column expert, layer and one column of loads are needed beside it")
    if not values_at:
        raise ValueError("no column holds loads")

    next_layer: Dict[float, int] = {}
    places = []
    for number, row in rows:
        step = row[names.index("step")] if "step" in names else 0.0
        if "layer" in names:
            layer = row[names.index("layer")]
        else:
            layer = float(next_layer.get(step, 0))
            next_layer[step] = next_layer.get(step, 0) + 1
        expert = row[names.index("expert")] if cell_wise else 0.0
        if not (math.isfinite(step) and math.isfinite(layer)):
            raise ValueError(f"line {number}: a step or layer that is no number")
        if not 0 <= expert < 2**20 or expert != int(expert):
            raise ValueError(f"line {number}: an expert's number expected, from 0")
        places.append((step, layer, int(expert)))

    steps, layers = ({key: i for i, key in enumerate(sorted({p[n] for p in places}))} for n in (0, 1))
    experts = 1 + max(p[2] for p in places) if cell_wise else len(values_at)
    if len(steps) * len(layers) * experts > 2**16 + 256 * len(rows) * len(values_at):
        raise ValueError("it stands for far more cells than it has")
    loads = np.full((len(steps), len(layers), experts), np.nan)
    for (number, row), (step, layer, expert) in zip(rows, places):
        cells = loads[steps[step], layers[layer]][expert : expert + 1 if cell_wise else None]
        if not np.isnan(cells).all():
            raise ValueError(f"line {number}: the second line for this place")
        cells[:] = [row[i] for i in values_at]
        if not np.isfinite(cells).all():
            raise ValueError(f"line {number}: a load that is no finite number")
    if not cell_wise and np.isnan(loads).any():
        step_at, layer_at, _ = np.argwhere(np.isnan(loads))[0]
        raise ValueError(f"step {sorted(steps)[step_at]:g} has no layer {sorted(layers)[layer_at]:g}")
    return np.nan_to_num(loads)
