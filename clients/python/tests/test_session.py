# SPDX-License-Identifier: Apache-2.0
"""What a rank's session does in which step."""

import importlib.util
import unittest
from unittest import mock

import numpy as np

if importlib.util.find_spec("torch") is None:
    raise unittest.SkipTest("python3-torch is not installed")

import torch

from eplbd_client import Placement, PlacementId
from eplbd_client.adapters import Settings
from eplbd_client.adapters import session as adapter_session
from eplbd_client.adapters.channel import ROUND_STEPS, Channel, Say
from eplbd_client.adapters.session import Session
from eplbd_client.adapters.tally import Tally
from fake_daemon import FakeDaemon

INITIAL = Placement.initial(3, 8, 12, 4)
NEXT = Placement(PlacementId(5, 1), np.roll(INITIAL.physical_to_logical, 3, axis=1), 8, 4)


class Alone:
    """A group of one rank: what is summed over it stays as it is."""

    def rank(self):
        return 0

    def allreduce(self, tensors):
        return self

    def wait(self):
        pass


class Agreeing(unittest.TestCase):
    def test_what_came_is_known_before_the_next_round_is_asked_for(self):
        channel, happened = Channel(Alone(), INITIAL), []

        def say():
            happened.append("asked")
            return Say(follows=True, running=PlacementId(5, 0), placement=NEXT)

        for _ in range(6 * ROUND_STEPS[1]):
            before = len(happened)
            agreed = channel.step(say)
            if agreed is not None and agreed.placement is not None:
                happened.append("came")
                self.assertEqual(agreed.placement.id, NEXT.id)
                self.assertTrue(agreed.placement.same_map(NEXT))
            self.assertLessEqual(len(happened) - before, 1, "one thing a step")
            self.assertTrue(channel.acted or len(happened) == before)
        self.assertGreater(len(happened), 4)
        self.assertEqual(happened, (["asked", "came"] * len(happened))[: len(happened)])


class Steps(unittest.TestCase):
    def test_none_does_more_than_one_part_of_the_work(self):
        daemon = FakeDaemon()
        self.addCleanup(daemon.close)
        settings = Settings("d", (daemon.counts_endpoint,), (daemon.placements_endpoint,))
        session = Session(settings, "an engine", INITIAL, Alone(), why_not="", refuse=lambda _: "", counts=True)
        self.addCleanup(session.close)
        table = torch.from_numpy(INITIAL.physical_to_logical.copy())
        tally, parts = Tally(table, 8, 4), []
        for owner, name in ((session, "_told"), (session.publisher, "publish"), (tally, "fetch"), (tally, "fetched")):
            setattr(owner, name, self.noted(parts, getattr(owner, name), name))
        with mock.patch.object(adapter_session, "_REPORT_SECONDS", 0):
            for _ in range(20 * ROUND_STEPS[1]):
                parts.append([])
                tally.add(torch.ones(table.shape, dtype=torch.int32), table)
                session.step()
                if session._channel.acted:
                    parts[-1].append("agree")
                session.report(tally, lambda: table)
        self.assertEqual(max(map(len, parts)), 1)
        self.assertEqual({name for step in parts for name in step}, {"agree", "fetch", "fetched", "publish", "_told"})
        total = 0
        while total < 12 * (len(parts) - ROUND_STEPS[1]):  # what the last of them counted may wait
            message = daemon.receive()[1]
            if message["type"] == "counts":
                total = int(np.frombuffer(message["counts"], "<u4")[:8].sum())

    @staticmethod
    def noted(parts, call, name):
        def noted(*args, **keys):
            parts[-1].append(name)
            return call(*args, **keys)

        return noted


if __name__ == "__main__":
    unittest.main()
