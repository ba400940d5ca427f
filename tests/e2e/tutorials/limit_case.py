"""A unittest with a limit of memory: one test leaks, the others do not."""
import unittest

import census

LEAK = []


class Limited(census.MemoryLimit, unittest.TestCase):
    memory_limit = "1MiB"

    def test_leaks(self):
        LEAK.extend(bytes(1000) for _ in range(3000))

    def test_frees(self):
        self.assertEqual(len([bytes(1000) for _ in range(3000)]), 3000)

    def test_small(self):
        LEAK.append(bytes(1000))


if __name__ == "__main__":
    unittest.main()
