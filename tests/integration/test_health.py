# SPDX-License-Identifier: Apache-2.0
"""Who connects a worker, or is called at night: three states, and what is wrong with whose messages."""

import json
import subprocess
import threading
import unittest

import numpy as np

from harness import SHAPE, DaemonTest, eventually, program
from workers import Publisher, initial_map, skewed_load

LOAD = skewed_load(1, **SHAPE)


class Health(DaemonTest):
    def setUp(self):
        self.subject = self.daemon()

    def publisher(self, source):
        publisher = Publisher(self.subject.counts, source=source, kind="delta").connected()
        self.addCleanup(publisher.close)
        return publisher

    def status(self):
        return self.subject.get_json("/api/v1/status")

    def ctl(self, *words):
        return subprocess.run(
            [program("eplbctl"), *words, "--socket", self.subject.config["control"]["socket"]],
            capture_output=True, text=True, timeout=30,
        )

    def test_waiting_until_somebody_counts_and_again_when_all_are_gone(self):
        self.subject.reload(workers={"timeout": "1s"})
        status = self.status()
        self.assertEqual("waiting", status["health"])
        self.assertIn(self.subject.counts.rpartition(":")[2], status["waiting_for"])
        answer = self.ctl("status")
        self.assertEqual(1, answer.returncode)
        self.assertIn("waiting for workers", answer.stdout)
        self.publisher("dp0").counts(LOAD)
        eventually(lambda: self.status()["health"] == "healthy", "healthy")
        self.assertEqual(0, self.ctl("status").returncode)
        eventually(lambda: self.status()["health"] == "waiting", "waiting again")
        self.assertIn("the last came from dp0", self.status()["waiting_for"])

    def test_whose_messages_are_dropped_is_named_with_what_was_expected(self):
        good, bad = self.publisher("good"), self.publisher("dp3")
        wide = np.asarray(LOAD).astype("<i8").tobytes()
        for _ in range(2):
            good.counts(LOAD)
            bad.counts(LOAD, counts=wide)
        status = eventually(lambda: (s := self.status())["problems"] and s, "a problem")
        self.assertEqual("degraded", status["health"])
        self.assertEqual(1, self.ctl("status").returncode)
        wanted = f"counts has {len(wide)} bytes, wants 4 x 32 x 4 = 512: int64?"
        for text in (status["problems"][0], self.ctl("status").stdout, self.subject.log(),
                     self.subject.get("/readyz")[1]):
            self.assertIn(wanted, text)
            self.assertIn("dp3 (127.0.0.1)", text)
        (rejected,) = status["rejected"]
        self.assertEqual(("dp3", "wrong_shape", 2),
                         (rejected["source"], rejected["reason"], rejected["times"]))
        self.assertEqual(1, self.subject.metrics()("problems", kind="messages_rejected"))

    def check_worker(self, *words):
        """Runs it, and returns a function that gives its answer once it has ended."""
        before = self.subject.get_json("/v1/messages")  # it is listening from here on
        self.assertEqual([], before["messages"])
        answers = []
        thread = threading.Thread(
            target=lambda: answers.append(self.ctl("check-worker", "--for", "2s", *words)))
        thread.start()
        return lambda: (thread.join(), answers[0])[1]

    def test_check_worker_explains_each_message(self):
        worker = self.publisher("dp3")
        finish = self.check_worker()
        worker.counts(LOAD, epoch=...)
        worker.state(initial_map(**SHAPE))
        worker.counts(LOAD)
        answer = finish()
        self.assertEqual(0, answer.returncode, answer.stdout + answer.stderr)
        self.assertRegex(answer.stdout, r"WRONG dp3: dropped \(missing_key\): epoch is missing")
        self.assertRegex(answer.stdout, r"right dp3: state: idle, runs 0\.0")
        self.assertRegex(answer.stdout, rf"right dp3: counts: {LOAD.sum()} tokens in ")

    def test_check_worker_says_once_a_second_what_stays_as_it_is(self):
        worker = self.publisher("dp3")
        finish = self.check_worker()
        for _ in range(100):
            worker.counts(LOAD)
        worker.counts(LOAD, steps=-1)
        answer = finish()
        self.assertLess(answer.stdout.count("right dp3: counts"), 50)
        self.assertEqual(1, answer.stdout.count("WRONG dp3"))
        self.assertIn("dp3: 100 messages right, 1 wrong", answer.stdout)

    def test_check_worker_fails_while_what_comes_is_wrong(self):
        worker = self.publisher("dp3")
        finish = self.check_worker("--json")
        worker.counts(LOAD)
        worker.counts(LOAD, steps=-1)
        answer = finish()
        self.assertEqual(1, answer.returncode)
        right, wrong = map(json.loads, answer.stdout.splitlines())
        self.assertTrue(right["taken"])
        self.assertIn("steps has the wrong type, wants an integer >= 0", wrong["detail"])

    def test_check_worker_says_where_to_connect_when_nothing_comes(self):
        answer = self.ctl("check-worker", "--for", "100ms")
        self.assertEqual(1, answer.returncode)
        self.assertIn("nothing came", answer.stdout)
        self.assertIn('"test"', answer.stdout)

    def test_history_outlives_a_restart(self):
        worker = self.publisher("dp0")
        worker.counts(LOAD)
        eventually(lambda: self.status()["placement"]["version"] >= 1, "an update")
        self.assertEqual(0, self.subject.stop())
        self.subject.start()
        answer = self.ctl("history", "--json")
        versions = [p["version"] for p in json.loads(answer.stdout)["placements"]]
        self.assertEqual(sorted(versions, reverse=True), versions)
        self.assertEqual(0, versions[-1])
        self.assertGreaterEqual(versions[0], 1)
        self.assertIn("threshold", self.ctl("history").stdout)


if __name__ == "__main__":
    unittest.main()
