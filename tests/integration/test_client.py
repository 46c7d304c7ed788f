# SPDX-License-Identifier: Apache-2.0
"""Our Python client and the daemon; docs/wire.md's own worker; files that engines start from."""

import json
import os
import re
import subprocess
import threading
import time
import unittest

import numpy as np

from harness import ROOT, SHAPE, DaemonTest, eventually
from workers import Follower, Publisher, initial_map, skewed_load, violations

try:
    from eplbd_client import CountsPublisher, Placement, PlacementSubscriber, StateReporter
    from eplbd_client.adapters import files
except ImportError as error:
    raise unittest.SkipTest(f"clients/python is not in PYTHONPATH: {error}") from error

EXPERTS, GPUS = SHAPE["logical_experts"], SHAPE["gpus"]


def documented() -> dict:
    """What the code of docs/wire.md defines."""
    page = (ROOT / "docs" / "wire.md").read_text("utf-8")
    names: dict = {}
    for code in re.findall(r"```python\n(.*?)```", page, re.S):
        exec(compile(code, "docs/wire.md", "exec"), names)
    return names


class Client(DaemonTest):
    def test_the_whole_way(self):
        daemon = self.daemon()
        running = Placement.initial(SHAPE["layers"], EXPERTS, SHAPE["slots"], GPUS)
        load = skewed_load(1, **SHAPE)
        counts = [daemon.counts]
        with (
            CountsPublisher("test", counts, "dp0", layers=4, logical_experts=EXPERTS) as publisher,
            StateReporter("test", counts, "head", running) as reporter,
            PlacementSubscriber(
                "test", [daemon.placements], running, heard=reporter.heard
            ) as subscriber,
        ):
            def follow():
                publisher.publish(load, running=subscriber.placement.id)
                return subscriber.poll(0.02)

            placement = eventually(follow, "a placement")
            found = violations(placement.physical_to_logical, EXPERTS, GPUS,
                               running.physical_to_logical)
            self.assertEqual(found, [])
            told = {tuple(move[:3]) for move in placement.moves.tolist()}
            mine = {tuple(change[:3]) for change in placement.difference(running).tolist()}
            self.assertEqual(mine, told)
            reporter.report(placement, "applied", apply_seconds=0.5)
            eventually(lambda: daemon.metrics()("apply_seconds_sum") == 0.5, "applied")
            self.assertFalse(subscriber.stale)
            daemon.kill()
            subscriber.poll(0.1)
            self.assertEqual(subscriber.placement.id, placement.id)
            publisher.publish(load, running=placement.id)
            daemon.start()
            before = daemon.metrics()("counts_lost_total")
            eventually(lambda: publisher.publish(load) and
                       daemon.metrics()("counts_messages_total"), "counts again")
            self.assertEqual(before, 0)
            self.assertEqual(publisher.errors, 0)

    def test_the_worker_in_the_documentation_follows(self):
        daemon = self.daemon(workers={"apply_timeout": "1s"})
        base = initial_map(**SHAPE)
        load = skewed_load(2, **SHAPE)
        moved = []

        def move_weights(old, new):
            moved.append((old, new))
            if len(moved) == 1:
                raise RuntimeError("no memory on GPU 3")

        def forward_pass(table):
            applied = daemon.metrics()("apply_seconds_count")
            return None if applied or time.monotonic() > deadline else load

        deadline = time.monotonic() + 30
        code = documented()
        counter = code["Counter"](daemon.counts, "test", "doc", SHAPE["layers"], EXPERTS)
        self.addCleanup(counter.socket.close)
        head = self.head_in_the_documentation(daemon, base)
        code["serve"](counter, head, forward_pass, move_weights)
        self.assertGreaterEqual(daemon.metrics()("apply_failures_total"), 1)
        self.assertIn("no memory on GPU 3", daemon.log())
        (first_old, first), (second_old, second) = moved
        for old in (first_old, second_old):
            np.testing.assert_array_equal(old, base)
        np.testing.assert_array_equal(first, second, "the same one, tried again")
        self.assertEqual(violations(second, EXPERTS, GPUS, base), [])
        self.assertEqual(head.running, daemon.placement()[0])

    def head_in_the_documentation(self, daemon, table):
        head = documented()["Head"](
            daemon.counts, daemon.placements, "test", "doc", table, EXPERTS, GPUS)
        self.addCleanup(head.socket.close)
        self.addCleanup(head.placements.close)
        return head

    def test_the_documented_worker_tells_again_what_nobody_heard(self):
        daemon = self.daemon()
        daemon.kill()
        own = np.roll(initial_map(**SHAPE), 3, axis=1)
        head = self.head_in_the_documentation(daemon, own)  # tells it at once
        daemon.start()
        eventually(
            lambda: head.poll(0.02) or np.array_equal(daemon.placement()[1], own), "it is adopted")

    def test_heartbeats_do_not_prolong_the_documented_worker_s_wait(self):
        daemon = self.daemon()
        head = self.head_in_the_documentation(daemon, initial_map(**SHAPE))
        waits = threading.Thread(target=head.poll, args=(2.5,), daemon=True)
        waits.start()
        waits.join(60)
        self.assertFalse(waits.is_alive())

    def test_the_worker_of_the_readmes_works(self):
        for page in (ROOT / "README.md", ROOT / "clients" / "python" / "README.md"):
            with self.subTest(page=page):
                text = page.read_text("utf-8")
                code = re.search(r"```python\n(from eplbd_client import .*?)```", text, re.S)[1]
                shape = {key: int(value) for key, value in re.findall(
                    r"(layers|logical_experts|slots|gpus)=(\d+)", code)}
                daemon = self.daemon(deployment="deepseek-v3-decode", topology=shape)
                code = code.replace("tcp://127.0.0.1:15557", daemon.counts)
                code = code.replace("tcp://127.0.0.1:15657", daemon.placements)
                start, step = code.split("new = subscriber.poll()")
                tokens = np.zeros((shape["layers"], shape["slots"]), np.int64)
                tokens[:] = 1 + np.arange(shape["slots"]) % 7 * 100000
                names: dict = {"tokens_per_slot": tokens}
                exec(compile(start, page, "exec"), names)
                for name in ("publisher", "reporter", "subscriber"):
                    self.addCleanup(names[name].close)

                def applied():
                    names["publisher"].publish_physical(tokens, names["running"])
                    exec(compile("new = subscriber.poll(0.02)" + step, page, "exec"), names)
                    group = daemon.get_json("/api/v1/status")["group"]
                    return group and group["status"] == "applied"

                eventually(applied, "a placement is applied")
                self.assertGreater(names["running"].id.version, 0)


class OldAndNew(DaemonTest):
    """tests/integration/workers.py and the golden vectors stand for the first release's workers."""

    def test_bytes_of_the_first_release_are_read(self):
        page = (ROOT / "docs" / "wire.md").read_text("utf-8")
        shape = {"layers": 2, "logical_experts": 4, "slots": 6, "gpus": 2}
        daemon = self.daemon(topology=shape, workers={"engine": "decode-7"})
        worker = Publisher(daemon.counts).connected()
        self.addCleanup(worker.close)
        for sequence, name in enumerate(("state", "counts")):
            digits = re.search(rf"^`{name}`\n.*?```hex\n(.*?)```", page, re.M | re.S)[1]
            worker.send(bytes.fromhex(digits), sequence=sequence)
        eventually(lambda: daemon.placement()[0] == (1763856001, 2), "the state was adopted")
        rejected = daemon.metrics().by_label("counts_rejected_total", "reason")
        self.assertEqual(rejected, {"wrong_engine": 1}, "the counts name no engine")

    def test_a_newer_worker_is_understood(self):
        daemon = self.daemon()
        worker = Publisher(daemon.counts).connected()
        self.addCleanup(worker.close)
        worker.counts(skewed_load(1, **SHAPE), precision="fp8", extra={"per_node": [1, 2]})
        eventually(lambda: daemon.metrics()("counts_messages_total") == 1, "taken")
        worker.counts(skewed_load(1, **SHAPE), v=2)
        eventually(
            lambda: daemon.metrics().by_label("counts_rejected_total", "reason")
            == {"wrong_version": 1}, "a version that is not known is rejected")


class Formats(DaemonTest):
    """The daemon's files and the client's are the same, dense layers and all."""

    def test_with_a_dense_prefix(self):
        ids = [3, 4, 6, 7]
        daemon = self.daemon(topology={**SHAPE, "layer_ids": ids})
        worker = Publisher(daemon.counts, source="dp0").connected()
        follower = Follower(daemon.placements, held=((0, 0), initial_map(**SHAPE)))
        self.addCleanup(worker.close)
        self.addCleanup(follower.close)
        load = skewed_load(3, **SHAPE)
        eventually(lambda: worker.counts(load) and follower.poll(0.02), "a placement")
        identity, table = follower.held
        placement = Placement(identity, table, EXPERTS, GPUS)

        def export(name):
            status, body, _ = daemon.get(f"/api/v1/placement?format={name}")
            self.assertEqual(status, 200)
            return body

        self.assertEqual(json.loads(export("json")), json.loads(files.sglang(placement, ids)))
        self.assertEqual(json.loads(export("vllm-ascend")), json.loads(files.vllm_ascend(placement)))
        rows = json.loads(export("json"))["physical_to_logical_map"]
        self.assertEqual(self.start_engine(daemon), rows)
        pairs = re.findall(r"^  (\d+): \[(.*)\]$", export("trtllm"), re.M)
        self.assertEqual([int(layer) for layer, _ in pairs], ids)
        rows = [[int(x) for x in row.split(",")] for _, row in pairs]
        np.testing.assert_array_equal(rows, table)
        self.assertIn("num_slots: 40", files.tensorrt_llm(placement, ids))

    def start_engine(self, daemon):
        """The map that an engine starts on by the lines in the client's README."""
        page = (ROOT / "clients" / "python" / "README.md").read_text("utf-8")
        lines = re.search(r"```sh\n(curl .*?)```", page, re.S)[1]
        package = daemon.folder / "sglang"
        package.mkdir()
        (package / "__init__.py").touch()
        (package / "launch_server.py").write_text(
            "import sys\n"
            "name = sys.argv[sys.argv.index('--init-expert-location') + 1]\n"
            "print(open(name).read())\n"
        )
        environment = {**os.environ, "MODEL": "any", "PYTHONPATH": str(daemon.folder)}
        started = subprocess.run(
            ["sh", "-e"], input=lines.replace("127.0.0.1:9877", daemon.http), text=True,
            capture_output=True, cwd=daemon.folder, env=environment, timeout=30)
        self.assertEqual(started.returncode, 0, started.stderr)
        return json.loads(started.stdout)["physical_to_logical_map"]


if __name__ == "__main__":
    unittest.main()
