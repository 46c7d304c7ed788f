# SPDX-License-Identifier: Apache-2.0
import asyncio
import logging
import time
import unittest

import numpy as np
import zmq.asyncio

from eplbd_client import AsyncPlacementSubscriber, Placement, PlacementId, PlacementSubscriber
from fake_daemon import FakeDaemon

INITIAL = Placement.initial(2, 4, 6, 2)
MAPS = [np.roll(INITIAL.physical_to_logical, i, axis=1) for i in range(6)]


class Subscribing(unittest.TestCase):
    def setUp(self):
        logging.getLogger("eplbd_client").setLevel(logging.CRITICAL)
        self.daemon = FakeDaemon()
        self.addCleanup(self.daemon.close)

    def subscriber(self, *more, **keys):
        endpoints = [self.daemon.placements_endpoint, *(d.placements_endpoint for d in more)]
        subscriber = PlacementSubscriber("d", endpoints, INITIAL, **keys)
        self.addCleanup(subscriber.close)
        for daemon in (self.daemon, *more):
            self.assertEqual(daemon.subscription(), b"\1d")
        return subscriber

    def test_takes_what_is_above_and_nothing_else(self):
        subscriber = self.subscriber()
        self.assertIs(subscriber.placement, INITIAL)
        self.daemon.placement(0, 0, MAPS[1])
        self.daemon.placement(5, 2, MAPS[2])
        self.assertEqual(subscriber.poll(2).id, (5, 2))
        np.testing.assert_array_equal(subscriber.placement.physical_to_logical, MAPS[2])
        for identity in ((5, 2), (5, 1), (4, 9), (0, 0)):
            self.daemon.placement(*identity, MAPS[3])
        self.daemon.placement(6, 1, MAPS[4])
        taken = subscriber.poll(2)
        self.assertEqual(taken.id, (6, 1))
        np.testing.assert_array_equal(subscriber.placement.physical_to_logical, MAPS[4])

    def test_several_at_once_are_one(self):
        subscriber = self.subscriber()
        for version in range(1, 6):
            self.daemon.placement(5, version, MAPS[version])
        deadline = time.monotonic() + 30
        while subscriber.placement.id < (5, 5) and time.monotonic() < deadline:
            subscriber.poll(0.1)
        self.assertEqual(subscriber.placement.id, (5, 5))

    def test_a_lost_message_is_asked_for_again(self):
        subscriber = self.subscriber()
        self.daemon.heartbeat(5, 3)
        self.assertIsNone(subscriber.poll(0.3))
        self.assertEqual(self.daemon.subscription(), b"\0d")
        self.assertEqual(self.daemon.subscription(), b"\1d")
        self.daemon.placement(5, 3, MAPS[3])
        self.assertEqual(subscriber.poll(2).id, (5, 3))
        self.daemon.heartbeat(5, 3)
        self.assertIsNone(subscriber.poll(0.2))
        self.assertFalse(self.daemon.placements.poll(100))

    def test_heartbeats_say_whether_the_daemon_lives(self):
        heard = []
        subscriber = self.subscriber(heard=heard.append, stale_seconds=0.2)
        self.assertFalse(subscriber.stale)
        self.assertIsNone(subscriber.poll(0.25))
        self.assertTrue(subscriber.stale)
        self.daemon.heartbeat(0, 0)
        subscriber.poll(0.1)
        self.assertFalse(subscriber.stale)
        self.assertEqual(heard, [PlacementId(0, 0)])
        self.assertIsNone(subscriber.poll(0.25))
        self.assertTrue(subscriber.stale)
        self.assertIs(subscriber.placement, INITIAL)

    def test_a_daemon_that_restarts(self):
        subscriber = self.subscriber()
        self.daemon.placement(5, 1, MAPS[1])
        self.assertEqual(subscriber.poll(2).id, (5, 1))
        self.daemon.stop()
        self.assertIsNone(subscriber.poll(0.1))
        self.daemon.start()
        self.assertEqual(self.daemon.subscription(), b"\1d")
        self.daemon.sequence = 0
        self.daemon.placement(5, 1, MAPS[1])
        self.daemon.placement(5, 2, MAPS[2])
        self.assertEqual(subscriber.poll(2).id, (5, 2))

    def test_several_daemons(self):
        other = FakeDaemon()
        self.addCleanup(other.close)
        subscriber = self.subscriber(other)
        self.daemon.placement(5, 1, MAPS[1])
        self.assertEqual(subscriber.poll(2).id, (5, 1))
        other.placement(6, 2, MAPS[2])
        self.assertEqual(subscriber.poll(2).id, (6, 2))
        self.daemon.placement(5, 9, MAPS[3])  # it lost its place and does not know yet
        self.daemon.heartbeat(5, 9)
        self.assertIsNone(subscriber.poll(0.2))
        self.assertEqual(subscriber.placement.id, (6, 2))

    def test_what_is_not_right_is_dropped(self):
        subscriber = self.subscriber()
        table = MAPS[1]
        self.daemon.send(b"\xc1")
        self.daemon.placements.send_multipart([b"d", b"x"])
        self.daemon.placements.send_multipart([b"d", b"short", b"\x80"])
        self.daemon.placement(5, 1, np.tile(table, (1, 2)))
        self.daemon.placement(5, 1, table, gpus=3)
        self.daemon.placement(5, 1, table, experts=5)
        self.daemon.placement(5, 1, table, v=2)
        self.daemon.placement(5, 1, table, physical_to_logical=b"")
        self.daemon.placement(5, 1, table, reason=4)
        self.assertIsNone(subscriber.poll(0.3))
        self.assertEqual(subscriber.tracker.rejected, 9)
        self.daemon.placement(5, 2, table, something="new")
        self.assertEqual(subscriber.poll(2).id, (5, 2))

    def test_another_deployment_whose_name_begins_alike(self):
        subscriber = self.subscriber()
        self.daemon.topic = b"d2"
        self.daemon.placement(9, 9, MAPS[1])
        self.assertIsNone(subscriber.poll(0.2))
        self.assertEqual(subscriber.tracker.rejected, 0)


class Asyncio(unittest.IsolatedAsyncioTestCase):
    async def test_next_and_iteration(self):
        daemon = FakeDaemon()
        self.addCleanup(daemon.close)
        context = zmq.asyncio.Context()
        self.addCleanup(context.term)
        async with AsyncPlacementSubscriber(
            "d", [daemon.placements_endpoint], INITIAL, context=context
        ) as subscriber:
            await asyncio.to_thread(daemon.subscription)
            self.assertIsNone(await subscriber.next(0.05))
            daemon.placement(5, 1, MAPS[1])
            self.assertEqual((await subscriber.next(2)).id, (5, 1))
            daemon.placement(5, 2, MAPS[2])
            daemon.placement(5, 3, MAPS[3])
            seen = []
            async for placement in subscriber:
                seen.append(placement.id)
                if placement.id == (5, 3):
                    break
            self.assertEqual(seen, [(5, 2), (5, 3)])
            daemon.heartbeat(5, 4)
            self.assertIsNone(await subscriber.next(0.3))
            self.assertEqual(await asyncio.to_thread(daemon.subscription), b"\0d")
            self.assertFalse(hasattr(subscriber, "poll"))  # it would block the event loop


if __name__ == "__main__":
    unittest.main()
