# SPDX-License-Identifier: Apache-2.0
"""The daemon that leads is killed, frozen, stopped, and cut off from etcd while the load moves: another
one takes over, what it says is above all that was said before, and it goes on by itself.

EPLBD_LEADER_KILLS, _FREEZES, _CUTS: how often it is killed and stopped, frozen, and cut off; _GONE:
seconds without etcd. Few and short where they are not set.
"""

import os
import signal
import subprocess
import unittest

from etcd import Etcd
from harness import SHAPE, Daemon, program
from leaders import LeadersTest
from network import Network
from workers import carried_over, violations

KILLS = int(os.environ.get("EPLBD_LEADER_KILLS", "1"))
FREEZES = int(os.environ.get("EPLBD_LEADER_FREEZES", "1"))
CUTS = int(os.environ.get("EPLBD_LEADER_CUTS", "1"))
GONE = float(os.environ.get("EPLBD_LEADER_GONE", "1.5"))  # a heartbeat and more


class Leaders(LeadersTest):
    def test_killed(self):
        self.begin()
        taken = []
        for _ in range(KILLS):
            leader, seconds = self.takeover(Daemon.kill)
            taken.append(seconds)
            self.goes_on_without(leader, self.daemons[leader].start)
        self.told("kills", taken)

    def test_stopped_and_told_to_step_down(self):
        self.begin()
        stopped, stepped = [], []
        for _ in range(max(2, KILLS)):  # so often that what takeovers publish must not count as updates
            leader, seconds = self.takeover(Daemon.stop)
            stopped.append(seconds)
            self.daemons[leader].start()
            _, seconds = self.takeover(lambda daemon: self.order(daemon, "/v1/leader/step-down"))
            stepped.append(seconds)
        self.told("planned stops", stopped)
        self.told("steps down", stepped)

    def test_an_operator_is_told_who_leads_and_has_it_step_down(self):
        self.begin()
        leader = self.leader()
        other = self.daemons[1 - leader]
        told = self.ctl(other, expect=1)
        self.assertIn(f"{self.daemons[leader].http.rpartition(':')[2]} leads, and takes orders", told)
        self.takeover(lambda daemon: self.assertIn("leads no longer", self.ctl(daemon)))
        alone = self.daemon(http={"listen": "127.0.0.1:0"})
        self.assertIn("serves alone", self.ctl(alone, expect=1))

    def test_frozen_until_another_leads_and_thawed(self):
        self.begin()
        taken = []
        for _ in range(FREEZES):
            leader, seconds = self.takeover(lambda daemon: daemon.process.send_signal(signal.SIGSTOP))
            taken.append(seconds)
            process = self.daemons[leader].process
            self.goes_on_without(leader, lambda: process.send_signal(signal.SIGCONT))
        self.told("freezes", taken)

    def test_who_takes_over_leads_in_the_shape_that_the_group_grew_to(self):
        self.begin()
        self.until_newer()
        leader = self.daemons[self.leader()]
        head = self.workers[0]
        head.table = carried_over(head.table, SHAPE["gpus"], 10, 5)
        head.gpus = 10
        self.serve(lambda: self.order(leader, "/v1/resize", {"gpus": 10, "slots": 50})[0] == 200,
                   "the order to resize is taken")
        self.serve(lambda: head.table.shape[1] == 50 and (head.table >= 0).all(), "a map of 50 slots")
        before, _ = self.takeover(Daemon.kill)
        for worker in self.workers:
            self.assertEqual(violations(worker.table, SHAPE["logical_experts"], 10), [])
        topology = self.daemons[1 - before].get_json("/api/v1/status")["topology"]
        self.assertEqual((10, 50, 8), tuple(topology[key] for key in ("gpus", "slots", "gpus_configured")))

    def test_etcd_is_gone_for_a_while(self):
        self.begin()
        self.until_newer()
        before = self.highest
        self.etcd.kill()
        self.stays_silent(GONE)
        self.etcd.start()
        self.leader()
        self.until_newer(before)

    def test_the_leaders_key_is_deleted(self):
        self.begin()
        self.until_newer()
        for _ in range(3 if KILLS > 10 else 1):
            self.leader()
            before = self.highest
            self.assertIn(before, self.history.saved())
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

    def ctl(self, daemon, expect=0):
        done = subprocess.run([program("eplbctl"), "--socket", daemon.config["control"]["socket"],
                               "leader", "step-down"], capture_output=True, text=True, timeout=30)
        self.assertEqual(done.returncode, expect, done.stdout + done.stderr)
        return done.stdout + done.stderr


class Cuts(LeadersTest):
    """etcd at the other end of links that lose what they are given: one for each daemon, one for us."""

    def setUp(self):
        self.network = Network(3)
        self.addCleanup(self.network.close)
        address = self.network.address(2)
        etcd = Etcd(address=address, listen="0.0.0.0", inside=self.network.inside)
        self.begin(etcd=etcd, urls=[etcd.urls_at(self.network.address(link)) for link in range(2)])

    def test_the_leader_does_not_reach_etcd(self):
        taken = []
        for _ in range(CUTS):
            leader = self.leader()
            held = self.etcd.get("/eplbd/test/leader")["create_revision"]

            def falls_silent_first():
                found = self.etcd.get("/eplbd/test/leader")
                if found is None or found["create_revision"] != held:
                    self.assertEqual(self.daemons[leader].metrics()("leader"), 0,
                                     "it leads after its lease ended")
                return True

            _, seconds = self.takeover(lambda _: self.network.cut(leader), until=falls_silent_first)
            taken.append(seconds)
            self.goes_on_without(leader, lambda: self.network.mend(leader))
        self.told("cuts", taken)

    def test_nobody_reaches_etcd(self):
        self.until_newer()
        for _ in range(max(1, CUTS // 10)):
            before = self.highest
            for link in range(2):
                self.network.cut(link)
            self.stays_silent(1.5)
            for link in range(2):
                self.network.mend(link)
            self.leader()
            self.until_newer(before)


if __name__ == "__main__":
    unittest.main()
