# SPDX-License-Identifier: Apache-2.0
"""Makes tests/data/eplb_golden.txt: what the published EPLB algorithm answers to small loads.

Usage: make_eplb_golden.py PROGRAM OUT. PROGRAM is a Python file that holds the published
rebalance_experts(weight, slots, groups, nodes, gpus) and the steps it calls; its balanced_packing
is replaced by the published greedy one (bench/deepseek_reference.py), so that a program which
changed only that step serves as well. Needs torch.

One case a line: layers experts slots groups nodes gpus | loads | physical_to_logical | ranks.
"""

import importlib.util
import pathlib
import sys

import torch

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "bench"))
import deepseek_reference  # noqa: E402

SHAPES = [(2, 12, 16, 4, 2, 8), (2, 16, 24, 4, 2, 8), (1, 32, 40, 1, 1, 8), (2, 8, 16, 1, 1, 4),
          (1, 24, 24, 4, 2, 4), (1, 24, 48, 6, 3, 12), (2, 16, 32, 4, 3, 32), (1, 64, 72, 8, 4, 8)]


def load(path):
    spec = importlib.util.spec_from_file_location("program", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.balanced_packing = deepseek_reference.pack
    return module


def loads(kind, layers, experts, generator):
    shape = (layers, experts)
    if kind == "spread":
        return torch.randint(0, 100000, shape, generator=generator)
    if kind == "ties":
        return torch.randint(0, 4, shape, generator=generator)
    if kind == "skewed":
        return (torch.rand(shape, generator=generator) ** 6 * 1e6).long()
    return torch.zeros(shape, dtype=torch.int64)


def main():
    program = load(sys.argv[1])
    generator = torch.Generator().manual_seed(1)
    lines = []
    for layers, experts, slots, groups, nodes, gpus in SHAPES:
        for kind in ("spread", "ties", "skewed", "zero"):
            weight = loads(kind, layers, experts, generator)
            placed, replicas, _ = program.rebalance_experts(weight.float(), slots, groups, nodes, gpus)
            ranks = torch.zeros(layers, slots, dtype=torch.int64)
            for layer in range(layers):
                for of_expert in replicas[layer]:
                    for rank, slot in enumerate(of_expert.tolist()):
                        if slot >= 0:
                            ranks[layer, slot] = rank
            parts = [torch.tensor([layers, experts, slots, groups, nodes, gpus]), weight, placed, ranks]
            lines.append(" | ".join(" ".join(map(str, p.flatten().tolist())) for p in parts))
    pathlib.Path(sys.argv[2]).write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
