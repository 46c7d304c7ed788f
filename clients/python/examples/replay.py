# SPDX-License-Identifier: Apache-2.0
"""A recorded trace through eplbd.Rebalancer, and a picture of it. A notebook as a script: each part
that begins with # %% is a cell.

    python3 replay.py TRACE --gpus 32 --slots 288 --picture replay.svg

Without TRACE, one is drawn at random: experts whose popularity drifts.
"""

# %% What is asked for
import argparse

import numpy as np

import eplbd

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("trace", nargs="?", help="any kind of file that eplbd.read_trace() reads; a step is a second")
parser.add_argument("--gpus", type=int, default=16)
parser.add_argument("--slots", type=int, default=0, help="default: a ninth more than experts, in full GPUs")
parser.add_argument("--steps", type=int, default=0, help="so many at most")
parser.add_argument("--apply-seconds", type=float, default=1.0, help="from a decision to the placement in force")
parser.add_argument("--picture", metavar="FILE.svg")
options = parser.parse_args()


# %% The trace: tokens [steps, layers, experts]
def drifting(steps=300, layers=8, experts=64, seed=1):
    random = np.random.default_rng(seed)
    popularity = random.normal(0, 1, (layers, experts))
    for _ in range(steps):
        popularity = 0.999 * popularity + 0.04 * random.normal(0, 1, popularity.shape)
        share = np.exp(popularity)
        yield random.poisson(20000 * share / share.sum(1, keepdims=True))


trace = eplbd.read_trace(options.trace) if options.trace else np.array(list(drifting()))
trace = np.rint(trace[: options.steps or None])
steps, layers, experts = trace.shape
gpus = options.gpus
slots = options.slots or -(-experts * 10 // 9 // gpus) * gpus

# %% Second by second: what runs serves the tokens, then they are told
balancer = eplbd.Rebalancer(layers=layers, logical_experts=experts, slots=slots, gpus=gpus)
running = initial = eplbd.initial_placement(layers, experts, slots)
static, served, updates = [], [], []
pending = None
for second, counts in enumerate(trace, 1):
    if pending and second >= pending[0] + options.apply_seconds:
        running = pending[1].placement
        balancer.applied(pending[1].id, now=second)
        pending = None
    static.append(eplbd.imbalance(initial, counts, gpus)[0])
    served.append(eplbd.imbalance(running, counts, gpus)[0])
    balancer.add(counts, seconds=1, now=second)
    decision = balancer.decide(now=second)
    if decision.update:
        pending = second, decision
        updates.append((second, decision.moves))

# %% In numbers
moves = sum(count for _, count in updates)
print(f"{steps} steps, {layers} layers, {experts} experts on {slots} slots of {gpus} GPUs")
print(f"imbalance: {np.mean(static):.3f} with the initial placement, {np.mean(served):.3f} with {moves} moves in {len(updates)} updates")

# %% In a picture
if options.picture:
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "eplbd"  # the same picture each time
    from matplotlib import pyplot

    figure, (above, below) = pyplot.subplots(
        2, 1, sharex=True, figsize=(8, 4.5), height_ratios=(3, 1), constrained_layout=True
    )
    seconds = np.arange(1, steps + 1)
    above.plot(seconds, static, color="#9a9a9a", label="initial placement")
    above.plot(seconds, served, color="#1f77b4", label="eplbd")
    above.axhline(1, color="black", linewidth=0.5)
    above.set_ylabel("imbalance\n(largest GPU / mean)")
    above.legend(frameon=False)
    below.bar([second for second, _ in updates], [count for _, count in updates], width=max(1, steps / 200), color="#1f77b4")
    below.set_ylabel("moves")
    below.set_xlabel("seconds")
    for axes in (above, below):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(options.picture, metadata={"Date": None} if options.picture.endswith(".svg") else None)
    print(options.picture)
