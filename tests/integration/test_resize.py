# SPDX-License-Identifier: Apache-2.0
"""A group that grows and shrinks while it is served."""

import json
import unittest

import numpy as np

from harness import SHAPE, DaemonTest, ask, eventually
from workers import (
    Follower,
    Publisher,
    carried_over,
    initial_map,
    moves,
    skewed_load,
    violations,
)

EXPERTS = SHAPE["logical_experts"]


def nowhere(table):
    """(layer, expert) that no GPU holds."""
    counts = [np.bincount(row[row >= 0], minlength=EXPERTS) for row in table]
    return sorted((layer, int(e)) for layer, row in enumerate(counts) for e in np.nonzero(row == 0)[0])


class Resize(DaemonTest):
    def start(self):
        self.subject = self.daemon(workers={"timeout": "30s", "apply_timeout": "30s"})
        self.counter = Publisher(self.subject.counts, source="dp0").connected()
        self.reporter = Publisher(self.subject.counts, source="head").connected()
        self.follower = Follower(self.subject.placements)
        for worker in (self.counter, self.reporter, self.follower):
            self.addCleanup(worker.close)
        self.gpus = SHAPE["gpus"]
        self.load = skewed_load(1, **SHAPE)
        self.names = []
        self.report((0, 0), initial_map(**SHAPE), "idle")

    def report(self, running, table, status):
        self.reporter.running = self.counter.running = running
        self.reporter.state(table, status, gpus=self.gpus)

    def count(self):
        self.counter.counts(self.load, gpu_tokens=np.full((SHAPE["layers"], self.gpus), 100))

    def apply_next(self):
        """The next placement's map, once the group runs it and the daemon knows."""
        eventually(lambda: self.count() or self.follower.poll(0.02), "a placement")
        identity, table = self.follower.held
        self.names.append(identity)
        self.report(identity, table, "applied")
        eventually(lambda: self.status()["placement"]["applied"], "applied")
        return table

    def scale(self, table, gpus, per_gpu):
        """The engine's workers start anew in the new shape, with what they carry over."""
        carried = carried_over(table, self.gpus, gpus, per_gpu)
        self.gpus = gpus
        for worker in (self.counter, self.reporter):
            worker.restart()
        self.report((0, 0), carried, "idle")
        return carried

    def status(self):
        return self.subject.get_json("/api/v1/status")

    def order(self, **body):
        status, text, _ = ask(self.subject.control(), "POST", "/v1/resize", body)
        return status, json.loads(text)

    def check(self, table, carried):
        self.assertEqual("resized", self.follower.message["reason"])
        self.assertEqual(violations(table, EXPERTS, self.gpus, carried), [])
        moved = np.frombuffer(self.follower.message["moves"], "<i4").reshape(-1, 4)
        self.assertEqual({tuple(move) for move in moved[:, :3].tolist()},
                         moves(table, carried, self.gpus))
        lost = sorted({(layer, expert) for layer, _, expert, source in moved.tolist() if source < 0})
        self.assertEqual(nowhere(carried), lost)
        self.assertEqual(sorted(self.names), self.names)

    def test_it_grows_by_an_order_and_shrinks_by_itself(self):
        self.start()
        first = self.apply_next()
        carried = self.scale(first, 10, 5)
        eventually(lambda: "--gpus 10 --slots 50" in str(self.status()["problems"]), "it is named")
        self.assertEqual(1, self.subject.metrics()("problems", kind="topology_mismatch"))
        self.count()  # of ten GPUs: what is counted by expert is taken
        self.assertEqual(409, self.order(gpus=12, slots=60)[0])
        code, would = self.order(gpus=10, slots=50, dry_run=True)
        self.assertEqual((200, "resized"), (code, would["reason"]))
        self.assertEqual(SHAPE["gpus"], self.status()["topology"]["gpus"])
        self.assertEqual(200, self.order(gpus=10, slots=50)[0])
        self.subject.kill()  # saved before it was published; the group has not heard of it
        self.subject.start()
        for worker in (self.counter, self.reporter):
            worker.connected()
        topology = self.status()["topology"]
        self.assertEqual((10, 8), (topology["gpus"], topology["gpus_configured"]))
        self.report((0, 0), carried, "idle")
        grown = self.apply_next()
        self.check(grown, carried)
        self.assertEqual([], self.status()["problems"])
        self.assertEqual(10, len(self.status()["gpu_load_ratio"]))
        self.assertFalse(self.subject.metrics().by_label("counts_rejected_total", "reason"))

        self.subject.reload(topology={"follow": True})
        carried = self.scale(grown, 6, 6)
        eventually(lambda: self.follower.poll(0.02), "the answer to it")
        lost = self.status()["placement"]["from_disk"]
        self.assertEqual(nowhere(carried), [tuple(pair) for pair in lost])
        self.assertIn("from disk", [fact["name"] for fact in self.status()["facts"]])
        self.report((0, 0), carried, "applying")
        self.names.append(self.follower.held[0])
        self.report(*self.follower.held, "applied")
        self.check(self.follower.held[1], carried)
        eventually(lambda: self.status()["placement"]["applied"], "applied")

        # The configuration as it is now: nothing else changes.
        self.assertEqual(0, self.subject.stop())
        self.subject.config["topology"].update(gpus=6, slots=36)
        self.subject.start()
        placement = self.status()["placement"]
        self.assertEqual(self.names[-1], (placement["term"], placement["version"]))
        self.assertEqual(6, self.status()["topology"]["gpus_configured"])


if __name__ == "__main__":
    unittest.main()
