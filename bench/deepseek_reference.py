# SPDX-License-Identifier: Apache-2.0
"""The published EPLB algorithm (deepseek-ai/EPLB) in Python, written anew from its description.

The yardstick of bench/solver and the origin of the golden files: torch tensors in float32, one
Python loop over the items of each row, as the published program works, so that both its results
and its time are comparable.

Usage: deepseek_reference.py LOADS.npy SLOTS GROUPS NODES GPUS [--out MAP.npy] [--seed-program FILE]
Prints the seconds that one rebalancing took. --seed-program runs that file's rebalance_experts
instead, which has the same signature.
"""

import argparse
import importlib.util
import time

import numpy
import torch


def pack(weight, packs):
    """Heaviest first, each item to the lightest pack with room. weight [rows, items] -> two
    [rows, items]: the pack of an item and its rank there."""
    rows, items = weight.shape
    room = items // packs
    if room == 1:
        return torch.arange(items).expand(rows, -1), torch.zeros(rows, items, dtype=torch.int64)
    order = weight.float().sort(dim=-1, descending=True, stable=True).indices
    pack_of = torch.full((rows, items), -1, dtype=torch.int64)
    rank_of = torch.full((rows, items), -1, dtype=torch.int64)
    for row in range(rows):
        loads = [0] * packs
        filled = [0] * packs
        for item in order[row]:
            lightest = min((p for p in range(packs) if filled[p] < room), key=loads.__getitem__)
            pack_of[row, item] = lightest
            rank_of[row, item] = filled[lightest]
            loads[lightest] += weight[row, item]
            filled[lightest] += 1
    return pack_of, rank_of


def replicate(weight, replicas):
    """Each spare slot to the expert with the heaviest replicas. weight [rows, experts] -> expert
    and rank of each replica [rows, replicas], replica counts [rows, experts]."""
    rows, experts = weight.shape
    expert_of = torch.arange(replicas).repeat(rows, 1)
    rank_of = torch.zeros(rows, replicas, dtype=torch.int64)
    count = torch.ones(rows, experts, dtype=torch.int64)
    every_row = torch.arange(rows)
    for replica in range(experts, replicas):
        hottest = (weight / count).max(dim=-1).indices
        expert_of[:, replica] = hottest
        rank_of[:, replica] = count[every_row, hottest]
        count[every_row, hottest] += 1
    return expert_of, rank_of, count


def inverse(permutation):
    result = torch.empty_like(permutation)
    positions = torch.arange(permutation.shape[1]).expand(permutation.shape)
    return result.scatter_(1, permutation, positions)


def rebalance_experts(weight, slots, groups, nodes, gpus):
    """-> physical_to_logical [layers, slots], logical_to_physical [layers, experts, X], counts."""
    layers, experts = weight.shape
    weight = weight.float().cpu()
    if groups % nodes != 0:
        groups, nodes = 1, 1
    group_size = experts // groups

    tokens_per_group = weight.unflatten(-1, (groups, group_size)).sum(-1)
    node_of, rank_of = pack(tokens_per_group, nodes)
    place_of_group = node_of * (groups // nodes) + rank_of
    place_of_expert = (place_of_group.unsqueeze(-1) * group_size
                       + torch.arange(group_size)).flatten(-2)
    expert_at = inverse(place_of_expert)

    node_weight = weight.gather(-1, expert_at).view(layers * nodes, experts // nodes)
    local_of, replica_rank, node_count = replicate(node_weight, slots // nodes)
    replica_weight = (node_weight / node_count).gather(-1, local_of)
    gpu_of, slot_of = pack(replica_weight, gpus // nodes)
    replica_at = inverse(gpu_of * (slots // gpus) + slot_of)

    local_at = local_of.gather(-1, replica_at).view(layers, nodes, -1)
    first_of_node = torch.arange(nodes).view(1, nodes, 1) * (experts // nodes)
    physical_to_logical = expert_at.gather(-1, (local_at + first_of_node).flatten(-2))
    rank_at = replica_rank.gather(-1, replica_at).view(layers, -1)
    count = node_count.view(layers, -1).gather(-1, place_of_expert)

    width = int(count.max())
    logical_to_physical = torch.full((layers, experts, width), -1, dtype=torch.int64)
    logical_to_physical.view(layers, -1).scatter_(
        -1, physical_to_logical * width + rank_at, torch.arange(slots).expand(layers, -1))
    return physical_to_logical, logical_to_physical, count


def load_program(path):
    spec = importlib.util.spec_from_file_location("seed_program", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.rebalance_experts


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("loads")
    for name in ("slots", "groups", "nodes", "gpus"):
        parser.add_argument(name, type=int)
    parser.add_argument("--out")
    parser.add_argument("--seed-program")
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    rebalance = load_program(arguments.seed_program) if arguments.seed_program else rebalance_experts
    loads = torch.from_numpy(numpy.load(arguments.loads).astype(numpy.float32))
    start = time.perf_counter()
    placement = rebalance(loads, arguments.slots, arguments.groups, arguments.nodes, arguments.gpus)
    print(time.perf_counter() - start)
    if arguments.out:
        numpy.save(arguments.out, placement[0].numpy().astype(numpy.int32))


if __name__ == "__main__":
    main()
