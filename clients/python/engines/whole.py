# SPDX-License-Identifier: Apache-2.0
"""A whole vLLM on this CPU: its CPU wheel serves a tiny mixture of experts over HTTP from two
expert-parallel ranks, under our adapter and beside a real eplbd. Answers to the same prompts, at
temperature 0, must be the same before, between and after updates.
"""

import http.client
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import tiny_model
from harness import Daemon, ask, eventually
from tiny_model import EXPERTS, LAYERS, WORDS

HERE = Path(__file__).resolve().parent
RANKS, REDUNDANT = 2, 4
TRAFFIC, KIND_SECONDS = 6, 10  # clients beside, and how long they ask about the same
ENTRY_POINTS = """\
[vllm.platform_plugins]
eplb_cpu = vllm_cpu_platform:platform
[vllm.general_plugins]
eplb_cpu = vllm_cpu_platform:register
eplbd = eplbd_client.adapters.vllm:register
"""


class Engine:
    """`vllm serve`, and a deployment of eplbd that watches it at first."""

    def __init__(self, folder, asynchronous):
        self.daemon = Daemon(
            "whole", mode="observe",
            topology={"layers": LAYERS, "logical_experts": EXPERTS, "slots": EXPERTS + REDUNDANT, "gpus": RANKS},
            trigger={"imbalance": 1.05, "settle": 1.02, "interval": "100ms", "cooldown": "1s"},
            workers={"timeout": "20s", "apply_timeout": "60s"}).start()
        plugins = folder / "whole-0.dist-info"
        plugins.mkdir()
        (plugins / "METADATA").write_text("Metadata-Version: 2.1\nName: whole\nVersion: 0\n")
        (plugins / "entry_points.txt").write_text(ENTRY_POINTS)
        model = folder / "model"
        tiny_model.write(model)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        eplb = {"num_redundant_experts": REDUNDANT, "use_async": asynchronous, "communicator": "torch_gloo",
                "window_size": 50, "step_interval": 10**6}
        environment = {
            **os.environ, "PYTHONPATH": f"{folder}:{HERE}:{HERE.parent}", "PYTHONDONTWRITEBYTECODE": "1",
            "EPLBD_DEPLOYMENT": "whole", "EPLBD_COUNTS": self.daemon.counts,
            "EPLBD_PLACEMENTS": self.daemon.placements, "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1", "VLLM_CPU_CI_ENV": "1",
            "TORCHDYNAMO_DISABLE": "1", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1",
            "VLLM_HOST_IP": "127.0.0.1"}
        self.log = folder / "log"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", model,
                 "--served-model-name", "tiny", "--dtype", "float32", "--enforce-eager", "--port", str(self.port),
                 "--host", "127.0.0.1", "--max-model-len", "256", "--max-num-seqs", "8",
                 "--tensor-parallel-size", str(RANKS), "--enable-expert-parallel", "--enable-eplb",
                 "--eplb-config", json.dumps(eplb)],
                env=environment, stdout=log, stderr=log, start_new_session=True)

    def ready(self):
        if self.process.poll() is not None:
            raise AssertionError("vLLM has ended")
        try:
            return ask(http.client.HTTPConnection("127.0.0.1", self.port, timeout=10), "GET", "/health")[0] == 200
        except OSError:
            return False

    def answer(self, prompt, tokens=24):
        body = {"model": "tiny", "prompt": prompt, "max_tokens": tokens, "temperature": 0, "ignore_eos": True}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        status, text, _ = ask(connection, "POST", "/v1/completions", body, {"Content-Type": "application/json"})
        if status != 200:
            raise AssertionError(text)
        return json.loads(text)["choices"][0]["text"]

    def status(self):
        return self.daemon.get_json("/api/v1/status")

    def updates(self):
        return int(self.daemon.metrics()("apply_seconds_count"))

    def close(self):
        if self.process.poll() is None:
            os.killpg(self.process.pid, 9)
            self.process.wait()
        self.daemon.close()


class Traffic:
    """Clients whose prompts are of a kind that changes."""

    def __init__(self, engine):
        self._engine, self._stop = engine, threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(seed,)) for seed in range(TRAFFIC)]

    def _run(self, seed):
        chance = random.Random(seed)
        while not self._stop.is_set():
            first = 3 + int(time.monotonic() / KIND_SECONDS) % 3 * (WORDS // 3)
            words = (f"t{chance.randrange(first, min(first + WORDS // 3, WORDS))}" for _ in range(40))
            self._engine.answer(" ".join(words), 30)

    def __enter__(self):
        for thread in self._threads:
            thread.start()

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join()


def run(engine, updates, seconds):
    deadline = time.monotonic() + seconds
    eventually(engine.ready, "vLLM serves", seconds)
    chance = random.Random(0)
    prompts = [" ".join(f"t{chance.randrange(3, WORDS)}" for _ in range(12)) for _ in range(4)]
    expected = [engine.answer(prompt) for prompt in prompts]
    if len(set(expected)) < len(prompts):
        raise AssertionError("answers do not depend on the prompt")
    before = engine.status()["imbalance"]
    status, text, _ = ask(engine.daemon.control(), "POST", "/v1/mode", {"mode": "active"})
    if status != 200:
        raise AssertionError(text)
    figures = {"answers": 0, "answers_wrong": 0}

    def ask_again():
        figures["answers"] += len(prompts)
        figures["answers_wrong"] += sum(engine.answer(p) != e for p, e in zip(prompts, expected))

    with Traffic(engine):
        while engine.updates() < updates and time.monotonic() < deadline:
            ask_again()
    eventually(lambda: engine.status()["placement"]["applied"], "the last placement is applied", 60)
    ask_again()
    shown = engine.status()
    return {
        **figures, "updates_applied": engine.updates(),
        "failures": int(engine.daemon.metrics()("apply_failures_total")),
        "imbalance_observed": before, "imbalance": shown["imbalance"], "problems": shown["problems"]}


def main():
    told = json.loads(sys.argv[1])
    with tempfile.TemporaryDirectory(prefix="eplbd-whole-") as name:
        engine = Engine(Path(name), told["mode"] == "async")
        try:
            figures = run(engine, told["updates"], told["seconds"])
        except BaseException:
            print(engine.log.read_text(errors="replace")[-5000:], file=sys.stderr)
            raise
        finally:
            engine.close()
    print(json.dumps({"engine": told["engine"], "mode": told["mode"], **figures}))
    good = figures["updates_applied"] >= told["updates"] and not figures["answers_wrong"] and not figures["failures"]
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
