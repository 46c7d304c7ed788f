# SPDX-License-Identifier: Apache-2.0
"""Counts on the device: each token by the row that routed it, whatever row came after."""

import importlib.util
import unittest

import numpy as np

if importlib.util.find_spec("torch") is None:
    raise unittest.SkipTest("python3-torch is not installed")

import torch

from eplbd_client import Placement, PlacementId, gpu_tokens, logical_counts
from eplbd_client.adapters.tally import Tally

LAYERS, EXPERTS, SLOTS, GPUS = 4, 5, 8, 2


def rows(seed):
    random = np.random.default_rng(seed)
    return torch.from_numpy(random.integers(-1, EXPERTS, (LAYERS, SLOTS)))


class Counting(unittest.TestCase):
    def setUp(self):
        self.table = rows(0)
        self.tally = Tally(self.table, EXPERTS, GPUS)

    def test_each_pass_is_counted_by_its_own_map(self):
        counts = np.zeros((LAYERS, EXPERTS), np.uint64)
        received = np.zeros((LAYERS, GPUS), np.uint64)
        for step in range(6):
            tokens = torch.randint(0, 1000, (LAYERS, SLOTS), dtype=torch.int32)
            self.table.copy_(rows(step))  # in place, as engines do
            placement = Placement(PlacementId(0, 0), self.table.numpy(), EXPERTS, GPUS)
            counts += logical_counts(tokens.numpy(), placement)
            received += gpu_tokens(tokens.numpy(), GPUS)
            self.tally.add(tokens, self.table)
        self.tally.fetch(self.table, "mark")
        found = self.tally.fetched()
        np.testing.assert_array_equal(found.counts, counts)
        np.testing.assert_array_equal(found.gpu_tokens, received)
        np.testing.assert_array_equal(found.table, self.table.numpy())
        self.assertEqual((found.steps, found.mark), (6, "mark"))

    def test_what_was_fetched_does_not_come_again(self):
        self.assertIsNone(self.tally.fetched())
        self.tally.add(torch.ones(LAYERS, SLOTS, dtype=torch.int32), self.table)
        self.tally.fetch(self.table)
        self.assertTrue(self.tally.busy)
        self.tally.add(torch.full((LAYERS, SLOTS), 2, dtype=torch.int32), self.table)
        self.assertEqual(self.tally.fetched().gpu_tokens.tolist(), [[4, 4]] * LAYERS)
        self.assertFalse(self.tally.busy)
        self.tally.fetch(self.table)
        self.assertEqual(self.tally.fetched().gpu_tokens.tolist(), [[8, 8]] * LAYERS)

    def test_the_rows_of_moe_layers_only(self):
        self.tally.rows = [1, 3]
        self.tally.add(torch.arange(LAYERS)[:, None].repeat(1, SLOTS).int(), self.table)
        self.tally.fetch(self.table)
        found = self.tally.fetched()
        self.assertEqual(found.gpu_tokens.tolist(), [[4, 4], [12, 12]])
        np.testing.assert_array_equal(found.table, self.table[[1, 3]].numpy())


if __name__ == "__main__":
    unittest.main()
