# SPDX-License-Identifier: Apache-2.0
"""One run of scripts/engines: a daemon, four ranks, a load that drifts, and what came of it."""

import json
import logging
import multiprocessing
import os
import queue
import sys
import tempfile
import time
import types

import numpy as np

from harness import Daemon, ask, eventually
from stage import Shape, run_rank

from eplbd_client.adapters import Settings

SHAPE = Shape(layers=8, experts=32, slots=40, gpus=4)
ENDS_WITHIN = 60  # seconds


def options_for(engine, mode, files, version, seed, settings):
    return types.SimpleNamespace(
        shape=SHAPE, engine=engine, mode=mode, files=files, version=version, seed=seed,
        settings=settings, period=250, tokens=400, pace=0.005, quiet_steps=250,
        asynchronous=mode != "sync", window=50, interval=400, batching=False, rocm=False, drafts=(), a2a="deepep",
        layers_per_chunk=2 if mode == "chunked" else None)


def start_daemon(mode):
    shape = SHAPE._asdict()
    return Daemon(
        "engines",
        mode="observe" if mode == "observe" else "active",
        topology={"layers": shape["layers"], "logical_experts": shape["experts"],
                  "slots": shape["slots"], "gpus": shape["gpus"]},
        window={"half_life": "1s"},
        trigger={"imbalance": 1.05, "settle": 1.02, "interval": "50ms", "cooldown": "200ms"},
        workers={"timeout": "20s", "apply_timeout": "20s"},
    ).start()


class Run:
    def __init__(self, options, daemon):
        self.options, self.daemon = options, daemon
        self.folder = tempfile.TemporaryDirectory(prefix="eplbd-engines-")
        self.stop, self.events = multiprocessing.Event(), multiprocessing.Queue()
        self.processes = [
            multiprocessing.Process(
                target=run_rank, daemon=True,
                args=(rank, options, f"{self.folder.name}/meet", f"{options.engine}_stage:Stage",
                      self.stop, self.events))
            for rank in range(SHAPE.gpus)
        ]

    def totals(self):
        """Tokens [layers, experts] that the daemon counted since the first call."""
        status, body, _ = self.npy()
        assert status == 200, body
        return body

    def npy(self):
        import http.client
        import io

        connection = self.daemon.control()
        connection.request("GET", "/v1/counts")
        answer = connection.getresponse()
        table = np.load(io.BytesIO(answer.read()))
        connection.close()
        return answer.status, table.astype(np.int64), None

    def applied(self):
        return int(self.daemon.metrics()("apply_seconds_count") or 0)

    def play(self, updates, seconds):
        self.totals()
        for process in self.processes:
            process.start()
        deadline, ended = time.monotonic() + seconds, {}
        while len(ended) < SHAPE.gpus:
            try:
                _, rank, figures = self.events.get(timeout=0.5)
                ended[rank] = figures
            except queue.Empty:
                pass
            dead = [p.exitcode for p in self.processes if p.exitcode not in (None, 0)]
            if dead:
                raise AssertionError(f"a rank ended with {dead}")
            self.totals()
            if self.done(updates) or time.monotonic() > deadline:
                self.stop.set()
            if time.monotonic() > deadline + ENDS_WITHIN:
                raise AssertionError("the ranks do not end")
        return [ended[rank] for rank in range(SHAPE.gpus)]

    def done(self, updates):
        if self.options.mode == "observe":
            return False
        return self.applied() >= updates


def figures_of(run, ended, options):
    figures = [one[0] for one in ended]
    sent = sum(one[1] for one in ended)

    def lost():
        return int(np.abs(run.totals() - sent).sum())

    try:
        eventually(lambda: lost() == 0, "all tokens counted", 5)
    except AssertionError:
        pass
    table = ended[0][2]
    identity, shown = run.daemon.placement()
    return {
        "engine": options.engine, "version": options.version, "mode": options.mode,
        "updates_applied": run.applied() if options.mode != "observe" else figures[0]["bursts"],
        "slots_checked": sum(one["slots_checked"] for one in figures),
        "slots_wrong": sum(one["slots_wrong"] for one in figures),
        "tokens_sent": int(sent.sum()), "tokens_lost": lost(),
        "steps": figures[0]["steps"],
        "step_held_ms_max": round(max(one["held_ms_max"] for one in figures), 3),
        "step_held_ms_p99": round(max(one["held_ms_p99"] for one in figures), 3),
        "engine_step_ms_max": round(max(one["engine_ms_max"] for one in figures), 3),
        "mixed_steps": sum(one["mixed_steps"] for one in figures),
        "map_as_shown": bool(np.array_equal(table, shown)),
        "placement": list(identity),
    }


def main():
    engine, version, mode, files, updates, seconds, seed, form = sys.argv[1:]
    daemon = start_daemon(mode)
    settings = Settings("engines", (daemon.counts,), (daemon.placements,))
    options = options_for(engine, mode, files, version, int(seed), settings)
    run = Run(options, daemon)
    try:
        ended = run.play(int(updates), float(seconds))
        figures = figures_of(run, ended, options)
    except BaseException:
        print(daemon.log()[-2000:], file=sys.stderr)
        raise
    finally:
        for process in run.processes:
            process.kill()
        daemon.close()
    if form == "text":
        for key, value in figures.items():
            print(f"{key:20} {value}")
    print(json.dumps(figures))
    good = not (figures["slots_wrong"] or figures["tokens_lost"] or figures["mixed_steps"])
    return 0 if good and figures["updates_applied"] and figures["map_as_shown"] else 1


if __name__ == "__main__":
    sys.exit(main())
