# SPDX-License-Identifier: Apache-2.0
import unittest

import numpy as np

from eplbd_client import Placement, PlacementId, gpu_tokens, logical_counts


def placement(table, experts=4, gpus=2, **keys):
    return Placement(PlacementId(1, 1), np.array(table), experts, gpus, **keys)


class Tables(unittest.TestCase):
    def test_initial(self):
        initial = Placement.initial(2, 4, 6, 2)
        self.assertEqual(initial.physical_to_logical.tolist(), [[0, 1, 2, 3, 0, 1]] * 2)
        self.assertEqual(initial.id, (0, 0))

    def test_logical_to_physical_is_in_slot_order_and_padded(self):
        tables = placement([[3, 0, 1, 2, 0, 3], [0, 1, 2, 0, 3, 0]])
        self.assertEqual(tables.logical_replica_count().tolist(), [[2, 1, 1, 2], [3, 1, 1, 1]])
        self.assertEqual(
            tables.logical_to_physical().tolist(),
            [
                [[1, 4, -1], [2, -1, -1], [3, -1, -1], [0, 5, -1]],
                [[0, 3, 5], [1, -1, -1], [2, -1, -1], [4, -1, -1]],
            ],
        )
        self.assertEqual(tables.logical_to_physical(width=5).shape, (2, 4, 5))
        with self.assertRaises(ValueError):
            tables.logical_to_physical(width=2)

    def test_tables_agree_on_random_maps(self):
        rng = np.random.default_rng(1)
        for _ in range(50):
            table = rng.integers(-1, 8, (3, 12))
            tables = placement(table, experts=8, gpus=4)
            where, count = tables.logical_to_physical(), tables.logical_replica_count()
            for layer in range(3):
                for expert in range(8):
                    slots = np.nonzero(table[layer] == expert)[0].tolist()
                    row = where[layer, expert].tolist()
                    self.assertEqual(row, slots + [-1] * (len(row) - len(slots)))
                    self.assertEqual(count[layer, expert], len(slots))

    def test_a_placement_does_not_change_under_its_holder(self):
        source = np.zeros((1, 4), np.int32)
        held = Placement(PlacementId(0, 0), source, 1, 2)
        source[0, 0] = 5
        self.assertEqual(held.physical_to_logical[0, 0], 0)
        with self.assertRaises(ValueError):
            held.physical_to_logical[0, 0] = 1

    def test_impossible_ones(self):
        for table, experts, gpus in (([[0, 1, 4]], 4, 3), ([[0, 1, -2]], 4, 3), ([[0, 1, 2]], 4, 2),
                                     ([0, 1], 4, 2), ([[0]], 1, 0)):
            with self.assertRaises(ValueError):
                placement(table, experts, gpus)


class Difference(unittest.TestCase):
    def test_what_to_fetch_and_from_where(self):
        old = placement([[0, 1, 2, 3, 0, 1], [0, 1, 2, 3, 0, 1]])
        new = placement([[0, 1, 3, 3, 2, 1], [0, 1, 2, 3, 0, 1]])
        self.assertEqual(new.difference(old).tolist(), [[0, 2, 3, 3], [0, 4, 2, 2]])
        self.assertEqual(new.layers_changed_from(old).tolist(), [0])

    def test_own_gpu_first_then_the_least_busy(self):
        old = placement([[0, 1, 0, 2, 0, 3, 1, 1]], gpus=4)
        new = placement([[1, 0, 0, 2, 0, 0, 0, 1]], gpus=4)
        changes = {slot: source for _, slot, _, source in new.difference(old).tolist()}
        self.assertEqual(changes[0], 1)  # both copies on the same GPU
        self.assertEqual(changes[1], 0)
        self.assertEqual(changes[5], 4)
        self.assertIn(changes[6], (0, 2, 4))

    def test_many_moves_of_one_expert_spread_over_its_holders(self):
        old = placement([[0, 1, 0, 2, 1, 2, 1, 2, 1, 2, 1, 2]], experts=3, gpus=6)
        new = placement([[0, 1, 0, 2, 1, 0, 1, 0, 1, 0, 1, 0]], experts=3, gpus=6)
        sources = [source for *_, source in new.difference(old).tolist()]
        self.assertEqual(sorted(sources), [0, 0, 2, 2])

    def test_nowhere_and_gpus_that_are_down(self):
        old = placement([[0, 1, -1, 0]], gpus=4)
        new = placement([[0, 1, 3, -1]], gpus=4, gpus_down=np.array([3], np.int32))
        self.assertEqual(new.difference(old).tolist(), [[0, 2, 3, -1]])
        back = placement([[-1, 0, 1, 1]], gpus=4, gpus_down=np.array([0], np.int32))
        self.assertEqual(back.difference(old).tolist(), [[0, 1, 0, 3], [0, 2, 1, 1], [0, 3, 1, 1]])

    def test_best_gain_first(self):
        old = Placement.initial(4, 4, 6, 2)
        table = np.array(old.physical_to_logical)
        table[[0, 2, 3], 4] = 2
        new = placement(table, changed_layers=np.array([3, 1, 0], np.int32))
        self.assertEqual(new.layers_changed_from(old).tolist(), [3, 0, 2])

    def test_following_the_difference_gives_the_new_map(self):
        rng = np.random.default_rng(2)
        for _ in range(50):
            old = placement(rng.integers(-1, 8, (3, 12)), experts=8, gpus=4)
            new = placement(rng.integers(0, 8, (3, 12)), experts=8, gpus=4)
            table = np.array(old.physical_to_logical)
            for layer, slot, expert, source in new.difference(old):
                if source >= 0:
                    self.assertEqual(old.physical_to_logical[layer, source], expert)
                else:
                    self.assertNotIn(expert, old.physical_to_logical[layer])
                table[layer, slot] = expert
            np.testing.assert_array_equal(table, new.physical_to_logical)

    def test_other_shape(self):
        with self.assertRaises(ValueError):
            Placement.initial(2, 4, 6, 2).difference(Placement.initial(3, 4, 6, 2))


class Counts(unittest.TestCase):
    def test_replicas_add_up_under_the_map_that_counted(self):
        tables = placement([[3, 0, 1, 2, 0, 3]])
        physical = np.array([[1, 10, 100, 1000, 10000, 100000]])
        self.assertEqual(logical_counts(physical, tables).tolist(), [[10010, 100, 1000, 100001]])
        other = placement([[0, 0, 1, 2, 3, 3]])
        self.assertEqual(logical_counts(physical, other).tolist(), [[11, 100, 1000, 110000]])

    def test_empty_slots_belong_to_nobody(self):
        tables = placement([[0, 1, 2, 3, -1, -1]])
        self.assertEqual(logical_counts(np.ones((1, 6), int), tables).tolist(), [[1, 1, 1, 1]])

    def test_wide_counts(self):
        tables = placement([[0, 0, 1, 1]], experts=2)
        wide = np.full((1, 4), 2**40, np.int64)
        self.assertEqual(logical_counts(wide, tables).tolist(), [[2**41, 2**41]])

    def test_shape(self):
        with self.assertRaises(ValueError):
            logical_counts(np.zeros((2, 6), int), placement([[0, 1, 2, 3, 0, 1]]))

    def test_gpu_tokens(self):
        self.assertEqual(gpu_tokens(np.array([[1, 2, 3, 4, 5, 6]]), 2).tolist(), [[6, 15]])


if __name__ == "__main__":
    unittest.main()
