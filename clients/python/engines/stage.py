# SPDX-License-Identifier: Apache-2.0
"""The ranks of an engine under a load that drifts: what they do in a step, and what is checked."""

import importlib
import logging
import threading
import time
from collections import Counter
from typing import NamedTuple

import numpy as np
import torch
import torch.distributed as dist


HISTORY = 64
BURST_STEPS = 20  # changes of the map this near to each other are of one update


class Shape(NamedTuple):
    layers: int
    experts: int
    slots: int
    gpus: int


class Load:
    """Tokens a rank routes to each expert in a step. What is popular changes every `period` steps,
    from one to the next by and by; all ranks' traffic is of one kind."""

    def __init__(self, shape, rank, seed, period, tokens):
        self._shape, self._seed, self._period, self._tokens = shape, seed, period, tokens
        self._random = np.random.default_rng((seed, rank))

    def _popular(self, epoch):
        layers, experts = self._shape.layers, self._shape.experts
        order = np.random.default_rng((self._seed, epoch, 7)).permuted(
            np.tile(np.arange(experts), (layers, 1)), axis=1)
        return (1.0 / (1.0 + order)) / (1.0 / (1.0 + np.arange(experts))).sum()

    def step(self, number):
        epoch, part = divmod(number / self._period, 1)
        mix = (1 - part) * self._popular(int(epoch)) + part * self._popular(int(epoch) + 1)
        return self._random.multinomial(self._tokens, mix)


def route(counts, logical_to_physical, replicas, slots):
    """Tokens [layers, slots]: an expert's go to its replicas by turns."""
    tokens = np.zeros((counts.shape[0], slots), np.int32)
    layers = np.broadcast_to(np.arange(counts.shape[0])[:, None], counts.shape)
    for turn in range(int(replicas.max())):
        here = turn < replicas
        share = (counts + replicas - 1 - turn) // np.maximum(replicas, 1)
        np.add.at(tokens, (layers[here], logical_to_physical[..., turn][here]), share[here])
    return tokens


class Holds:
    """How long the adapter held each step up, around the engine's own: its time on the processor, and
    by the wall clock, which also tells what it waited for other ranks and what else this machine ran."""

    def __init__(self, calls):
        self.processor, self.wall, self._of_step = [], [], np.zeros(2)
        for owner, name in calls:
            setattr(owner, name, self._timed(getattr(owner, name)))

    def _timed(self, call):
        def timed(*args, **keys):
            started = _clocks()
            try:
                return call(*args, **keys)
            finally:
                if threading.current_thread() is threading.main_thread():
                    self._of_step += _clocks() - started
        return timed

    def end_step(self):
        self.processor.append(1000 * self._of_step[0])
        self.wall.append(1000 * self._of_step[1])
        self._of_step = np.zeros(2)


def _clocks():
    return np.array([time.thread_time(), time.perf_counter()])


def run_rank(rank, options, rendezvous, make, stop, events, maps):
    """`make` is `module:class`. Puts (rank, (figures, tokens sent, map)) into `events`; `maps` holds, for
    each rank, its step and what it ran in the last HISTORY steps; at its
    end, how often rank 0's map changed."""
    torch.set_num_threads(1)
    logging.basicConfig(level=logging.WARNING, format=f"rank {rank}: %(message)s")
    logging.getLogger("eplbd_client").setLevel(logging.INFO if rank == 0 else logging.WARNING)
    dist.init_process_group(
        "gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=options.shape.gpus)
    lockstep = dist.new_group()
    module, _, name = make.rpartition(":")
    stage = getattr(importlib.import_module(module), name)(options, rank)
    figures = Counter(slots_checked=0, slots_wrong=0, steps=0, mixed_steps=0, bursts=0)
    load = Load(options.shape, rank, options.seed, options.period, options.tokens)
    sent = np.zeros((options.shape.layers, options.shape.experts), np.int64)
    holds, engine_seconds, last = None, [], stage.table().copy()
    checksum = np.random.default_rng(1).integers(1, 1 << 30, last.shape)
    changed_at = -BURST_STEPS
    quiet = 0  # steps without traffic, at the end: what is on its way arrives
    while quiet < options.quiet_steps:
        runs = int((last * checksum).sum())
        at = rank * (1 + HISTORY)
        maps[at + 1 + figures["steps"] % HISTORY], maps[at] = runs, figures["steps"]
        said = torch.tensor([runs, int(rank == 0 and stop.is_set())])
        all_said = [torch.empty_like(said) for _ in range(options.shape.gpus)]
        dist.all_gather(all_said, said, group=lockstep)
        figures["mixed_steps"] += any(int(one[0]) != int(said[0]) for one in all_said)
        quiet += bool(quiet or int(all_said[0][1]))
        if not quiet:
            counts = load.step(figures["steps"])
            sent += counts
            stage.count(route(counts, *stage.maps(), options.shape.slots))
        time.sleep(options.pace)
        if holds is None and stage.link is not None:
            holds = Holds(stage.held())
        elif holds is None and options.settings is None:
            holds = Holds(stage.policy_calls())
        started = time.perf_counter()
        stage.step(is_dummy=bool(quiet))
        engine_seconds.append(time.perf_counter() - started)
        if holds is not None:
            holds.end_step()
        figures["steps"] += 1
        changed = np.nonzero((stage.table() != last).any(axis=1))[0]
        if changed.size:
            figures["slots_checked"] += changed.size * options.shape.slots // options.shape.gpus
            figures["slots_wrong"] += stage.wrong(changed)
            figures["bursts"] += figures["steps"] - changed_at > BURST_STEPS
            if rank == 0:
                maps[-1] = figures["bursts"]
            changed_at, quiet = figures["steps"], min(quiet, 1)
            last = stage.table().copy()
    figures["slots_checked"] += options.shape.layers * options.shape.slots // options.shape.gpus
    figures["slots_wrong"] += stage.wrong(range(options.shape.layers))
    if stage.link is not None and stage.link.session.publisher is not None:
        stage.link.session.publisher.flush(5)
    figures["held_ms_max"] = max(holds.processor)
    figures["held_wall_ms_max"] = max(holds.wall)
    figures["held_wall_ms_p99"] = float(np.quantile(holds.wall, 0.99))
    figures["engine_ms_max"] = 1000 * max(engine_seconds)
    events.put((rank, (dict(figures), sent, last)))
    dist.barrier(group=lockstep)
