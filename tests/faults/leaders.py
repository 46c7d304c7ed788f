# SPDX-License-Identifier: Apache-2.0
"""Two daemons of one deployment, of which one leads, and workers that judge what they are told: what
each accepts goes up, one name has one map, and nothing is named that was not saved.

EPLBD_LEADER_WORKERS: how many there are.
"""

import math
import os
import statistics
import time
import unittest
import zlib

import msgpack
import numpy as np

from etcd import Etcd
from harness import SHAPE, Daemon, DaemonTest, ask, eventually
from workers import Follower, Publisher, skewed_load

WORKERS = int(os.environ.get("EPLBD_LEADER_WORKERS", "4"))
TTL = 2.0
LATE = 1.0  # seconds, in which what was sent is received


class History:
    """What all workers were told: a name has one map, and is saved before anybody hears it."""

    def __init__(self, test: unittest.TestCase, etcd: Etcd) -> None:
        self.test = test
        self.etcd = etcd
        self.maps = {(0, 0): None}  # by name
        self.since = {}  # by term: when it was first heard

    def told(self, message: dict) -> None:
        name, table = (message["term"], message["version"]), message["physical_to_logical"]
        if name > (0, 0):
            self.test.assertEqual(self.maps.setdefault(name, table), table, "one id, two maps")
            self.since.setdefault(name[0], time.monotonic())

    def beat(self, beat: dict) -> None:
        """It may name what was saved, and reached nobody before its leader ended."""
        name = beat["term"], beat["version"]
        if name not in self.maps:
            self.test.assertIn(name, self.saved(), "named, and not saved")

    def saved(self) -> set[tuple[int, int]]:
        state = zlib.decompress(self.etcd.get("/eplbd/test/state")["value"][8:])
        state = msgpack.unpackb(state[24:])
        updates = map(msgpack.unpackb, [state["published"], *state["history"]])
        return {(update["term"], update["version"]) for update in updates}

    def accepted(self, name: tuple[int, int]) -> None:
        for term, since in self.since.items():
            deposed = term > name[0] and time.monotonic() > since + LATE
            self.test.assertFalse(deposed, f"{name} of a deposed leader was accepted after {term}")


class Worker:
    """Counts for all daemons, and takes placements from each by a socket of its own, so that it is
    known who sent what."""

    def __init__(self, history: History, daemons: list[Daemon], source: str) -> None:
        self.history = history
        self.publisher = Publisher(daemons[0].counts, source=source)
        for daemon in daemons[1:]:
            self.publisher.socket.connect(daemon.counts)
        self.followers = [Follower(daemon.placements) for daemon in daemons]
        self.heard = [(0, 0)] * len(daemons)  # the newest name, of each
        self.running = (0, 0)
        self.table = None
        self.gpus = SHAPE["gpus"]
        self.accepted = []  # (monotonic, id, who sent it)
        self.beats = 0

    def look(self) -> None:
        """Takes what came."""
        for who, follower in enumerate(self.followers):
            while follower.socket.poll(0):
                follower.poll(0)
            for message in follower.seen:
                self.history.told(message)
                self.take(message, who)
            for beat in follower.heartbeats:
                self.history.beat(beat)
            self.beats += len(follower.heartbeats)
            follower.seen.clear()
            follower.heartbeats.clear()

    def take(self, message: dict, who: int) -> None:
        name = message["term"], message["version"]
        self.history.test.assertGreaterEqual(name, self.heard[who], "what a daemon sends went back")
        self.heard[who] = name
        if name > self.running:
            self.history.accepted(name)
            self.running = name
            table = np.frombuffer(message["physical_to_logical"], "<i4")
            self.table = table.reshape(SHAPE["layers"], -1)
            self.accepted.append((time.monotonic(), name, who))

    def send(self, load) -> None:
        self.publisher.running = self.running
        self.publisher.counts(load)

    def report(self) -> None:
        if self.table is not None:
            self.publisher.state(self.table, status="applied", gpus=self.gpus)

    def close(self) -> None:
        self.publisher.close()
        for follower in self.followers:
            follower.close()


class LeadersTest(DaemonTest):
    def begin(self, members=1, etcd=None, urls=None):
        """`urls`: of etcd's members, for each daemon."""
        self.etcd = etcd or Etcd(members)
        self.addCleanup(self.etcd.close)
        self.etcd.start()
        self.daemons = [Daemon(ha={"etcd": own, "ttl": f"{TTL:g}s"})
                        for own in urls or 2 * [self.etcd.urls]]
        for daemon in self.daemons:
            self.addCleanup(self._end, daemon)
            daemon.start()
        self.history = History(self, self.etcd)
        self.workers = [Worker(self.history, self.daemons, f"dp{i}") for i in range(WORKERS)]
        for worker in self.workers:
            self.addCleanup(worker.close)
        self.seed = 0
        self.another_load()

    def another_load(self):
        self.seed += 1
        self.load = skewed_load(self.seed, **SHAPE, sigma=1.0)

    @property
    def highest(self):
        return max(worker.running for worker in self.workers)

    def serve(self, until, what, timeout=20.0):
        """Workers count, take and report until `until()` is true."""

        def step():
            for worker in self.workers:
                worker.look()
                worker.send(self.load)
            self.workers[0].report()
            return until()

        return eventually(step, what, timeout, poll=0.02)

    def until_newer(self, than=None, timeout=20.0):
        than = than or self.highest
        return self.serve(lambda: all(worker.running > than for worker in self.workers),
                          f"a placement above {than} at every worker", timeout)

    def leader(self):
        """Who published last: waits until it leads, as it says."""

        def leading():
            found = [who for who, daemon in enumerate(self.daemons)
                     if daemon.process.poll() is None and daemon.metrics()("leader") == 1]
            return found if len(found) == 1 else None

        return self.serve(leading, "one daemon leads")[0]

    def takeover(self, end, timeout=TTL + 10, until=lambda: True):
        """Who led, and the seconds from end(leader) until every worker has what another leader
        published; `until` is asked all the time."""
        leader = self.leader()
        self.another_load()
        self.until_newer()
        before = self.highest
        began = time.monotonic()
        end(self.daemons[leader])
        self.serve(lambda: until() and all(worker.running[0] > before[0] for worker in self.workers),
                   "a new term at every worker", timeout)
        seconds = max(next(at for at, name, _ in worker.accepted if name[0] > before[0])
                      for worker in self.workers) - began
        self.assertNotEqual(self.workers[0].accepted[-1][2], leader)
        return leader, seconds

    def goes_on_without(self, leader, return_):
        """The one that led comes back as one that stands by: it is heard by nobody."""
        marks = [len(worker.accepted) for worker in self.workers]
        return_()
        daemon = self.daemons[leader]

        def follows():
            status = daemon.get_json("/api/v1/status")
            return not status["leader"] and not self.without_leader(status)

        self.serve(follows, "it knows that another leads")
        self.another_load()
        self.until_newer()
        for worker, mark in zip(self.workers, marks):
            self.assertNotIn(leader, {who for _, _, who in worker.accepted[mark:]})

    def without_leader(self, status):
        return "no daemon is known to lead" in " ".join(status["problems"])

    def stays_silent(self, seconds):
        """None leads, so nobody is told anything, and every worker keeps what it has."""
        self.serve(lambda: all(daemon.metrics()("leader") == 0 for daemon in self.daemons), "none leads")
        self.serve(lambda: all(self.without_leader(daemon.get_json("/api/v1/status"))
                               for daemon in self.daemons), "all know that none leads")
        for daemon in self.daemons:
            self.assertEqual(self.order(daemon, "/v1/pause")[0], 409)
        for worker in self.workers:  # what was sent before
            worker.look()
        before = [(worker.running, worker.beats) for worker in self.workers]
        self.another_load()
        silent_until = time.monotonic() + seconds
        self.serve(lambda: time.monotonic() > silent_until, "a while", seconds + 20)
        self.assertEqual([(worker.running, worker.beats) for worker in self.workers], before)

    def order(self, daemon, path, body=None):
        return ask(daemon.control(), "POST", path, body or {})

    def told(self, what, seconds):
        seconds = sorted(seconds)
        print(f"{len(seconds)} {what}: takeover p50 {statistics.median(seconds):.3f} s, "
              f"p99 {seconds[math.ceil(0.99 * len(seconds)) - 1]:.3f} s, most {seconds[-1]:.3f} s",
              flush=True)
