# SPDX-License-Identifier: Apache-2.0
"""One run of scripts/engines: a daemon, four ranks, a load that drifts, and what came of it."""

import io
import json
import multiprocessing
import queue
import sys
import tempfile
import time
import types

import numpy as np

from faults import FAULTS
from harness import Daemon, ask, eventually
from stage import HISTORY, Shape, run_rank

from eplbd_client.adapters import Settings

SHAPE = Shape(layers=8, experts=32, slots=40, gpus=4)
APPLY_SECONDS = 10
ENDS_WITHIN = 60  # seconds


def stage_options(told, shape, daemon):
    """What each rank gets. A step is at least `pace` seconds long; `stuck_seconds` is short."""
    mode, extra = told["mode"], told["extra"]
    return types.SimpleNamespace(
        shape=shape, files=told["files"], version=told["version"], seed=told["seed"],
        settings=None if mode == "library" else Settings(
            "engines", (daemon.counts,), (daemon.placements,), stuck_seconds=3.0,
            unchecked=True),
        period=250, tokens=400, pace=0.005, quiet_steps=250, window=50, interval=400,
        asynchronous=mode != "sync", layers_per_chunk=2 if mode == "chunked" else None, a2a="deepep",
        rocm="rocm" in extra, batching="batching" in extra, draft="draft" in extra,
        fault=told["fault"])


class Run:
    def __init__(self, told, shape=SHAPE):
        self.daemon = Daemon(
            "engines",
            mode="observe" if told["mode"] == "observe" else "active",
            topology={"layers": shape.layers, "logical_experts": shape.experts,
                      "slots": shape.slots, "gpus": shape.gpus},
            window={"half_life": "1s"},
            trigger={"imbalance": 1.05, "settle": 1.02, "interval": "50ms", "cooldown": "200ms"},
            workers={"timeout": "20s", "apply_timeout": f"{APPLY_SECONDS}s"},
        ).start()
        self.told, self.shape, self.apply_seconds = told, shape, APPLY_SECONDS
        self.by_itself = told["mode"] in ("observe", "library")  # the engine says when
        self.folder = tempfile.TemporaryDirectory(prefix="eplbd-engines-")
        self.stop, self.events = multiprocessing.Event(), multiprocessing.Queue()
        self.maps = multiprocessing.Array("q", shape.gpus * (1 + HISTORY) + 1)
        self.fault = FAULTS[told["fault"]](self) if told["fault"] in FAULTS else None
        self.applied_before = 0  # by daemons that are gone
        options = stage_options(told, shape, self.daemon)
        self.processes = [
            multiprocessing.Process(
                target=run_rank, daemon=True,
                args=(rank, options, f"{self.folder.name}/meet", f"{told['name']}_stage:Stage",
                      self.stop, self.events, self.maps))
            for rank in range(shape.gpus)
        ]

    # ---- the daemon ----

    def totals(self):
        """Tokens [layers, experts] that the daemon counted since the first call."""
        connection = self.daemon.control()
        connection.request("GET", "/v1/counts")
        table = np.load(io.BytesIO(connection.getresponse().read()))
        connection.close()
        return table.astype(np.int64)

    def applied(self):
        return self.applied_before + int(self.daemon.metrics()("apply_seconds_count") or 0)

    def applying(self):
        return not self.daemon.get_json("/api/v1/status")["placement"]["applied"]

    def order(self, path, **body):
        status, text, _ = ask(self.daemon.control(), "POST", path, body)
        if status != 200:
            raise AssertionError(text)

    # ---- the ranks ----

    def result(self):
        """The figures of the whole run."""
        if self.told["fault"] == "rank-dies":
            return self.fault.play()
        return self.figures(self.play())

    def play(self):
        """What each rank found."""
        self.totals()
        for process in self.processes:
            process.start()
        deadline, ended = time.monotonic() + self.told["seconds"], {}
        while len(ended) < self.shape.gpus:
            try:
                rank, figures = self.events.get(timeout=0.02 if self.fault else 0.5)
                ended[rank] = figures
            except queue.Empty:
                pass
            dead = [p.name for p in self.processes if p.exitcode not in (None, 0)]
            if dead:
                raise AssertionError(f"died: {', '.join(dead)}")
            self.totals()
            if self.fault and not self.stop.is_set():
                self.fault.look()
            if self.done() or time.monotonic() > deadline:
                self.stop.set()
            if time.monotonic() > deadline + ENDS_WITHIN:
                raise AssertionError("the ranks do not end")
        return [ended[rank] for rank in range(self.shape.gpus)]

    def done(self):
        updates = self.maps[-1] if self.by_itself else self.applied()
        enough = updates >= self.told["updates"]
        return enough and (self.fault is None or self.fault.happened)

    def figures(self, ended):
        figures = [one[0] for one in ended]
        # The library is told nothing but what the engine's own window holds.
        sent = sum(one[1] for one in ended) * (self.told["mode"] != "library")

        def lost():
            return int(np.abs(self.totals() - sent).sum())

        deadline = time.monotonic() + 5
        while lost() and time.monotonic() < deadline:
            time.sleep(0.05)
        identity, shown = self.daemon.placement()
        restarted = bool(self.applied_before)  # a daemon's totals begin with it
        return {
            "engine": self.told["name"], "version": self.told["version"], "mode": self.told["mode"],
            "updates_applied": figures[0]["bursts"] if self.by_itself else self.applied(),
            "slots_checked": sum(one["slots_checked"] for one in figures),
            "slots_wrong": sum(one["slots_wrong"] for one in figures),
            "tokens_sent": int(sent.sum()),
            "tokens_lost": None if restarted else lost(),
            "steps": figures[0]["steps"],
            **{f"step_{name}": round(max(one[name] for one in figures), 3)
               for name in ("held_ms_max", "held_wall_ms_p99", "held_wall_ms_max")},
            "engine_step_ms_max": round(max(one["engine_ms_max"] for one in figures), 3),
            "mixed_steps": sum(one["mixed_steps"] for one in figures),
            "map_as_shown": self.told["mode"] == "library" or bool(np.array_equal(ended[0][2], shown)),
            "fault": self.told["fault"], "fault_happened": bool(self.fault and self.fault.happened),
        }

    def close(self):
        for process in self.processes:
            process.kill()
        self.daemon.close()


def good(told, figures):
    # On ROCm vLLM takes an update only where its own check sees the gain.
    as_shown = figures["map_as_shown"] or "rocm" in told["extra"]
    wrong = figures["slots_wrong"] or figures["tokens_lost"] or figures["mixed_steps"]
    went = figures["updates_applied"] and figures["fault_happened"] == bool(told["fault"])
    return bool(as_shown and went and not wrong)


def main():
    told = json.loads(sys.argv[1])
    run = Run(told)
    try:
        figures = run.result()
    except BaseException:
        print(run.daemon.log()[-3000:], file=sys.stderr)
        raise
    finally:
        run.close()
    if not told["json"]:
        for key, value in figures.items():
            print(f"{key:20} {value}")
    print(json.dumps(figures))
    return 0 if good(told, figures) else 1


if __name__ == "__main__":
    sys.exit(main())
