# SPDX-License-Identifier: Apache-2.0
"""Two daemons of one deployment, of which one leads: killed, frozen, stopped, left without etcd while
the load moves. What every worker accepts goes up, one name has one map, and it goes on by itself.

EPLBD_LEADER_KILLS, _FREEZES, _CUTS: how often the leader is killed and stopped, frozen, and etcd gone; a
few where they are not set.
"""

import os
import random
import signal
import statistics
import time
import unittest

import numpy as np

from etcd import Etcd
from harness import SHAPE, Daemon, DaemonTest, ask, eventually
from workers import Follower, Publisher, skewed_load

KILLS = int(os.environ.get("EPLBD_LEADER_KILLS", "3"))
FREEZES = int(os.environ.get("EPLBD_LEADER_FREEZES", "2"))
CUTS = int(os.environ.get("EPLBD_LEADER_CUTS", "1"))
TTL = 2.0


class Worker:
    """Counts for all daemons, and takes placements from each by a socket of its own, so that it is
    known who sent what."""

    def __init__(self, test: unittest.TestCase, daemons: list[Daemon], source: str) -> None:
        self.test = test
        self.publisher = Publisher(daemons[0].counts, source=source)
        for daemon in daemons[1:]:
            self.publisher.socket.connect(daemon.counts)
        self.followers = [Follower(daemon.placements) for daemon in daemons]
        self.running = (0, 0)
        self.table = None
        self.accepted = []  # (monotonic, id, who sent it)
        self.beats = []

    def look(self, names: dict, terms: dict) -> None:
        """Takes what came. `names`: id -> map, `terms`: term -> who gives names in it."""
        for who, follower in enumerate(self.followers):
            while follower.socket.poll(0):
                follower.poll(0)
            for message in follower.seen:
                identity = message["term"], message["version"]
                table = message["physical_to_logical"]
                self.test.assertEqual(names.setdefault(identity, table), table, "one id, two maps")
                if identity == (0, 0):
                    continue
                self.test.assertEqual(terms.setdefault(identity[0], who), who, "one term, two leaders")
                if identity > self.running:
                    self.running = identity
                    self.table = np.frombuffer(table, "<i4").reshape(SHAPE["layers"], -1)
                    self.accepted.append((time.monotonic(), identity, who))
            self.beats += follower.heartbeats
            for beat in follower.heartbeats:
                self.test.assertIn((beat["term"], beat["version"]), {(0, 0), *names},
                                   "a name that nobody was sent")
            follower.seen.clear()
            follower.heartbeats.clear()

    def send(self, load) -> None:
        self.publisher.running = self.running
        self.publisher.counts(load)

    def report(self) -> None:
        if self.table is not None:
            self.publisher.state(self.table, status="applied")

    def close(self) -> None:
        self.publisher.close()
        for follower in self.followers:
            follower.close()


class LeadersTest(DaemonTest):
    def begin(self, members=1, workers=4):
        self.etcd = Etcd(members)
        self.addCleanup(self.etcd.close)
        self.etcd.start()
        ha = {"etcd": self.etcd.urls, "ttl": f"{TTL:g}s"}
        self.daemons = [Daemon(ha=ha) for _ in range(2)]
        for daemon in self.daemons:
            self.addCleanup(self._end, daemon)
            daemon.start()
        self.workers = [Worker(self, self.daemons, f"dp{i}") for i in range(workers)]
        for worker in self.workers:
            self.addCleanup(worker.close)
        self.names, self.terms = {}, {}
        self.seed = 0
        self.random = random.Random(1)
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
                worker.look(self.names, self.terms)
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

    def takeover(self, end, timeout=TTL + 10):
        """Seconds from end(leader) until every worker has what another leader published."""
        leader = self.leader()
        self.another_load()
        self.until_newer()
        before = self.highest
        began = time.monotonic()
        end(self.daemons[leader])
        self.serve(lambda: all(worker.running[0] > before[0] for worker in self.workers),
                   "a new term at every worker", timeout)
        seconds = max(next(at for at, identity, _ in worker.accepted if identity[0] > before[0])
                      for worker in self.workers) - began
        self.assertNotEqual(self.workers[0].accepted[-1][2], leader)
        return leader, seconds

    def told(self, what, seconds):
        seconds = sorted(seconds)
        print(f"{len(seconds)} {what}: takeover p50 {statistics.median(seconds):.3f} s, "
              f"p99 {seconds[int(0.99 * (len(seconds) - 1))]:.3f} s, most {seconds[-1]:.3f} s",
              flush=True)


class Leaders(LeadersTest):
    def test_killed(self):
        self.begin()
        taken = []
        for _ in range(KILLS):
            leader, seconds = self.takeover(Daemon.kill)
            taken.append(seconds)
            self.daemons[leader].start()
            self.another_load()
            self.until_newer()
        self.told("kills", taken)

    def test_stopped_and_told_to_step_down(self):
        self.begin()
        stopped, stepped = [], []
        for _ in range(2 * KILLS):  # so often that what takeovers publish must not count as updates
            leader, seconds = self.takeover(Daemon.stop)
            stopped.append(seconds)
            self.daemons[leader].start()
            _, seconds = self.takeover(lambda daemon: self.order(daemon, "/v1/leader/step-down"))
            stepped.append(seconds)
        self.told("planned stops", stopped)
        self.told("steps down", stepped)

    def test_frozen_until_another_leads_and_thawed(self):
        self.begin()
        taken = []
        for _ in range(FREEZES):
            leader, seconds = self.takeover(lambda daemon: daemon.process.send_signal(signal.SIGSTOP))
            taken.append(seconds)
            others = [len(worker.accepted) for worker in self.workers]
            self.daemons[leader].process.send_signal(signal.SIGCONT)
            frozen = self.daemons[leader]
            self.serve(lambda: not frozen.get_json("/api/v1/status")["leader"], "it stands by")
            self.another_load()
            self.until_newer()
            for worker, before in zip(self.workers, others):
                self.assertNotIn(leader, {who for _, _, who in worker.accepted[before:]})
        self.told("freezes", taken)

    def test_etcd_is_gone_for_a_while(self):
        self.begin()
        self.another_load()
        self.until_newer()
        for _ in range(CUTS):
            self.etcd.kill()
            self.serve(lambda: all(daemon.metrics()("leader") == 0 for daemon in self.daemons),
                       "none leads")
            self.serve(lambda: all(self.says_none_leads(daemon) for daemon in self.daemons),
                       "all know that none leads, and why")
            for daemon in self.daemons:
                self.assertEqual(self.order(daemon, "/v1/pause")[0], 409)
            for worker in self.workers:  # what was sent before
                worker.look(self.names, self.terms)
            before = self.highest
            self.another_load()
            silent_until = time.monotonic() + 1.5  # a heartbeat and more
            beats = [len(worker.beats) for worker in self.workers]
            self.serve(lambda: time.monotonic() > silent_until, "a while")
            self.assertEqual(self.highest, before, "published while nobody leads")
            self.assertEqual([len(worker.beats) for worker in self.workers], beats)
            self.etcd.start()
            self.leader()
            self.until_newer(before)

    def test_the_leaders_key_is_deleted(self):
        self.begin()
        for _ in range(3):
            self.leader()
            before = self.highest
            self.etcd.delete("/eplbd/test/leader")
            self.serve(lambda: all(worker.running[0] > before[0] for worker in self.workers),
                       "a new term at every worker")
            self.leader()
            self.another_load()
            self.until_newer()

    def test_one_of_three_members_is_killed(self):
        self.begin(members=3)
        for member in range(3 if KILLS > 10 else 1):
            self.etcd.kill(member)
            self.another_load()
            self.until_newer()
            self.etcd.start_member(member)
        self.takeover(Daemon.kill)

    def says_none_leads(self, daemon):
        problems = " ".join(daemon.get_json("/api/v1/status")["problems"])
        return "no daemon is known to lead" in problems and "refused" in problems

    def order(self, daemon, path, body=None):
        return ask(daemon.control(), "POST", path, body or {})


if __name__ == "__main__":
    unittest.main()
