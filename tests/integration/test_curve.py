# SPDX-License-Identifier: Apache-2.0
"""CURVE: a key speaks for its own sources, an observer's only listens, others are turned away."""

import re
import shlex
import subprocess
import unittest

import yaml
import zmq

from harness import ROOT, SHAPE, Daemon, DaemonTest, eventually, program
from workers import Follower, Keys, Publisher, initial_map, skewed_load

LOAD = skewed_load(1, **SHAPE)


@unittest.skipUnless(zmq.has("curve"), "libzmq without CURVE")
class Curve(DaemonTest):
    def setUp(self):
        self.server = zmq.curve_keypair()
        self.keys = {name: zmq.curve_keypair() for name in ("dp0", "dp1", "eye", "stranger")}
        daemon = Daemon(mode="observe")
        self.addCleanup(self._end, daemon)
        self.folder = daemon.folder
        (self.folder / "keys").mkdir()
        secret = self.folder / "secret"
        secret.write_bytes(self.server[1] + b"\n")
        secret.chmod(0o600)
        self.authorize("dp0", "source dp0")
        self.authorize("dp1", "source dp1 dp1-state")
        self.authorize("eye", "observer")
        daemon.config["security"] = {
            "curve_secret_key": str(secret),
            "authorized_keys": str(self.folder / "keys"),
        }
        self.subject = daemon.start()

    def authorize(self, name, role):
        (self.folder / "keys" / f"{name}.pub").write_text(f"{self.keys[name][0].decode()} {role}\n")

    def curve(self, key, server):
        return Keys(*self.keys[key], server or self.server[0]) if key else None

    def publisher(self, key, source, server=None):
        curve = self.curve(key, server)
        publisher = Publisher(self.subject.counts, source=source, curve=curve)
        self.addCleanup(publisher.close)
        return publisher

    def follower(self, key, server=None):
        follower = Follower(self.subject.placements, curve=self.curve(key, server))
        self.addCleanup(follower.close)
        return follower

    def taken(self):
        return self.subject.metrics()("counts_messages_total")

    def unauthorized(self):
        found = self.subject.metrics().by_label("counts_rejected_total", "reason")
        return found.get("unauthorized", 0)

    def test_a_key_speaks_for_its_sources(self):
        self.publisher("dp0", "dp0").connected().counts(LOAD)
        eventually(lambda: self.taken() == 1, "dp0 counted")
        both = self.publisher("dp1", "dp1").connected()
        both.counts(LOAD)
        both.keys["source"] = "dp1-state"
        both.state(initial_map(**SHAPE))
        eventually(lambda: self.taken() == 2, "dp1 counted")
        self.assertEqual(self.unauthorized(), 0)

    def test_and_for_no_other(self):
        liar = self.publisher("dp0", "dp1").connected()
        liar.counts(LOAD)
        eventually(lambda: self.unauthorized() == 1, "a rejected message")
        liar.state(initial_map(**SHAPE))
        eventually(lambda: self.unauthorized() == 2, "a rejected state")
        self.assertEqual(self.taken(), 0)
        self.assertEqual(self.subject.metrics()("workers"), 0)

    def test_an_observer_listens_only(self):
        eye = self.follower("eye")
        eventually(lambda: eye.poll(0.05) or eye.seen, "the placement in force")
        talker = self.publisher("eye", "eye")
        with self.assertRaises(AssertionError):
            talker.connected(0.5)
            talker.counts(LOAD)
            eventually(self.taken, "nothing", 0.5)
        self.assertEqual(self.taken(), 0)

    def test_strangers_get_nothing(self):
        for key, server in (("stranger", None), (None, None), ("dp0", self.keys["eye"][0])):
            with self.subTest(key=key, server=bool(server)):
                with self.assertRaises(AssertionError):
                    self.publisher(key, "dp0", server).connected(0.3)
                follower = self.follower(key, server)
                follower.poll(0.3)
                self.assertEqual((follower.seen, follower.heartbeats), ([], []))
        self.assertEqual(self.taken(), 0)
        good = self.publisher("dp0", "dp0").connected()
        good.counts(LOAD)
        eventually(lambda: self.taken() == 1, "good workers count")
        self.assertGreaterEqual(self.unauthorized(), 2, "turned away, and counted")
        self.assertLess(self.subject.log().count("\n"), 60, "the log is limited in rate")

    def test_keys_are_read_again_on_reload(self):
        with self.assertRaises(AssertionError):
            self.publisher("stranger", "dp9").connected(0.3)
        self.authorize("stranger", "source dp9")
        late = self.publisher("dp0", "dp0").connected()
        (self.folder / "keys" / "dp0.pub").unlink()
        self.subject.reload()
        self.publisher("stranger", "dp9").connected().counts(LOAD)
        eventually(lambda: self.taken() == 1, "the new key counts")
        before = self.unauthorized()
        late.counts(LOAD)
        eventually(lambda: self.unauthorized() == before + 1, "the key that is gone is nobody's")
        self.assertEqual(self.taken(), 1)

    def test_keygen_makes_what_the_client_reads(self):
        from eplbd_client import CountsPublisher, CurveKeys

        def keygen(name, *role):
            command = [program("eplbctl"), "keygen", str(self.folder / name), *role]
            subprocess.run(command, capture_output=True, text=True, check=True)
            return self.folder / f"{name}.key", self.folder / f"{name}.pub"

        secret, public = keygen("worker", "--source", "client")
        self.assertEqual(secret.stat().st_mode & 0o777, 0o600)
        public.rename(self.folder / "keys" / "worker.pub")
        server = self.folder / "server.pub"
        server.write_bytes(self.server[0] + b"\n")
        keys = CurveKeys.from_files(secret, server)
        self.subject.reload()
        with CountsPublisher("test", [self.subject.counts], "client", layers=SHAPE["layers"],
                             logical_experts=SHAPE["logical_experts"], curve=keys) as publisher:
            publisher.publish(LOAD)
            eventually(lambda: self.taken() == 1, "the client counts")


class Recipe(DaemonTest):
    """What docs/install.md says of workers on other machines, with a folder of our own for /etc."""

    RANKS = 3

    def setUp(self):
        text = (ROOT / "docs" / "install.md").read_text()
        text = text[text.index("## Workers on other machines") :].split("\n## ")[0]
        keys, exports = re.findall(r"```sh\n(.*?)```", text, re.S)
        (settings,) = re.findall(r"```yaml\n(.*?)```", text, re.S)
        self.recipe = Daemon(mode="observe")
        self.addCleanup(self._end, self.recipe)
        etc = str(self.recipe.folder)
        self.carry_out(keys)
        settings = settings.replace("/run/credentials/eplbd.service", etc).replace("/etc/eplbd", etc)
        # The documented addresses, on whatever port is free.
        found = yaml.safe_load(re.sub(r":15[56]57", ":*", settings))
        self.recipe.config.update(found)
        self.recipe.start()
        self.environment = dict(
            item.split("=", 1) for item in shlex.split(exports.replace("/etc/eplbd", etc))[1:])

    def carry_out(self, commands):
        """What comes before those for systemd."""
        commands = commands.split("systemctl")[0].replace("eplbctl", program("eplbctl"))
        commands = commands.replace("/etc/eplbd", str(self.recipe.folder))
        subprocess.run(["sh", "-euc", commands], check=True, stdout=subprocess.DEVNULL)

    def test_a_workers_key_is_changed(self):
        from eplbd_client import CountsPublisher, CurveKeys

        text = (ROOT / "docs" / "security.md").read_text()
        first, then = re.findall(r"```sh\n(.*?)```", text[text.index("## Changing keys") :], re.S)
        counts = f"tcp://127.0.0.1:{self.recipe.counts.rpartition(':')[2]}"
        folder = self.recipe.folder

        def heard(key):
            """A publisher of dp3 with this key, once it was heard."""
            curve = CurveKeys.from_files(folder / key, folder / "curve.pub")
            publisher = CountsPublisher("test", [counts], "dp3", layers=SHAPE["layers"],
                                        logical_experts=SHAPE["logical_experts"], curve=curve)
            self.addCleanup(publisher.close)
            before = self.recipe.metrics()("counts_messages_total")
            publisher.publish(LOAD)
            eventually(lambda: self.recipe.metrics()("counts_messages_total") > before, f"{key} counts")
            return publisher

        old = heard("dp3.key")
        self.carry_out(first)
        self.recipe.reload()
        old.close()
        heard("dp3.key").close()
        new = heard("new.key")
        self.assertEqual(self.recipe.metrics().by_label("counts_rejected_total", "reason"), {})
        self.carry_out(then)
        self.recipe.reload()
        with self.assertRaises(AssertionError):
            Publisher(self.recipe.counts, source="dp3", curve=Keys(
                *self.pair("dp3"), self.pair("curve")[0])).connected(0.3)
        before = self.recipe.metrics()("counts_messages_total")
        new.publish(LOAD)
        eventually(lambda: self.recipe.metrics()("counts_messages_total") > before, "the new key stays")

    def pair(self, name):
        """Public and secret key of a rank, as keygen wrote them."""
        secret = (self.recipe.folder / f"{name}.key").read_text().split()[-1].encode()
        return zmq.curve_public(secret), secret

    def test_every_rank_of_an_adapter_is_heard(self):
        from eplbd_client import CountsPublisher, Placement, PlacementSubscriber, StateReporter
        from eplbd_client.adapters import Settings, source_name

        port = self.recipe.counts.rpartition(":")[2], self.recipe.placements.rpartition(":")[2]
        counts, placements = (f"tcp://127.0.0.1:{number}" for number in port)
        settings = Settings.from_environment({"EPLBD_DEPLOYMENT": "test", **self.environment})
        running = Placement.initial(SHAPE["layers"], *(
            SHAPE[name] for name in ("logical_experts", "slots", "gpus")))
        heard = []
        reporter = StateReporter("test", [counts], source_name(0), running, curve=settings.curve(0))
        subscriber = PlacementSubscriber(
            "test", [placements], running, heard=heard.append, curve=settings.curve(0))
        for part in (reporter, subscriber):
            self.addCleanup(part.close)
        for rank in range(self.RANKS):
            publisher = CountsPublisher(
                "test", [counts], source_name(rank), layers=SHAPE["layers"],
                logical_experts=SHAPE["logical_experts"], curve=settings.curve(rank))
            self.addCleanup(publisher.close)
            publisher.publish(LOAD)
        metrics = self.recipe.metrics
        eventually(lambda: metrics()("counts_messages_total") >= self.RANKS, "all counts")
        eventually(lambda: subscriber.poll(0.05) or heard, "a heartbeat")
        eventually(lambda: self.recipe.get_json("/api/v1/status")["group"], "the group's state")
        self.assertEqual(metrics().by_label("counts_rejected_total", "reason"), {})
        self.assertEqual(metrics()("workers"), self.RANKS)


if __name__ == "__main__":
    unittest.main()
