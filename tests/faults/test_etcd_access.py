# SPDX-License-Identifier: Apache-2.0
"""How a daemon reaches etcd: certificates on both sides, users whose rights and tokens end, names of
hosts that are not resolved. What is wrong is said, and where it is mended it goes on by itself."""

import base64
import os
import re
import ssl
import subprocess
import tempfile
import unittest
from pathlib import Path

from etcd import Etcd
from harness import Daemon, DaemonTest, ask, eventually

SHIM = os.environ.get("EPLBD_FAULT_SHIM")
LONG = "20s"  # a lease that nothing here is to end


def openssl(*words):
    subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True, timeout=60)


class Certificates:
    """An authority, NAME.pem and NAME.key, and certificates of it."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.files = folder / f"{name}.pem", folder / f"{name}.key"
        self._make(*self.files, f"/CN={name}", "-addext", "basicConstraints=critical,CA:TRUE")

    def _make(self, certificate, key, subject, *more):
        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                "-days", 2, "-keyout", key, "-out", certificate, "-subj", subject, *more)

    def issue(self, name: str, hosts: str) -> tuple[Path, Path]:
        certificate, key = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        own, own_key = self.files
        self._make(certificate, key, f"/O={name}", "-CA", own, "-CAkey", own_key,
                   "-addext", "basicConstraints=critical,CA:FALSE",
                   "-addext", f"subjectAltName={hosts}")
        return certificate, key


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def named(urls: list[str]) -> list[str]:
    return [url.replace("127.0.0.1", "localhost") for url in urls]


class AccessTest(DaemonTest):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def secret(self, text, name="password"):
        path = self.folder / name
        path.touch(0o600)
        path.write_text(text)
        return str(path)

    def eplbd(self, urls, **ha):
        daemon = Daemon(ha={"etcd": urls, "ttl": "2s", **ha})
        self.addCleanup(self._end, daemon)
        daemon.begin()
        eventually(lambda: self.problems(daemon) is not None, "it listens")
        return daemon

    def problems(self, daemon):
        try:
            return " ".join(daemon.get_json("/api/v1/status")["problems"])
        except OSError:
            return None

    def leads(self, daemon):
        eventually(lambda: daemon.metrics()("leader") == 1, "it leads")
        eventually(lambda: self.saves(daemon, "pause"), "it saves")
        return daemon

    def complains(self, daemon, of):
        eventually(lambda: re.search(of, self.problems(daemon)), of)

    def saves(self, daemon, order):
        """Whether it carried the order out, and saved in etcd what came of it."""
        status, text, _ = ask(daemon.control(), "POST", f"/v1/{order}", {})
        return status == 200 and "not saved" not in text


class Tls(AccessTest):
    def test_each_knows_the_other(self):
        ours = Certificates(self.folder, "ours")
        server = ours.issue("server", "IP:127.0.0.1")
        client = ours.issue("client", "DNS:eplbd")
        theirs = Certificates(self.folder, "theirs")
        context = ssl.create_default_context(cafile=ours.files[0])
        context.load_cert_chain(*client)
        etcd = Etcd(tls=context, flags=["--cert-file", server[0], "--key-file", server[1],
                                        "--trusted-ca-file", ours.files[0], "--client-cert-auth"])
        self.addCleanup(etcd.close)
        etcd.start()
        own = {"certificate": str(client[0]), "key": str(client[1])}

        sound = self.leads(self.eplbd(etcd.urls, ca=str(ours.files[0]), **own))
        self.assertEqual(sound.stop(), 0)

        # What the files hold may change while it runs.
        trusted = self.folder / "trusted.pem"
        trusted.write_bytes(theirs.files[0].read_bytes())
        stranger = self.eplbd(etcd.urls, ca=str(trusted), **own)
        self.complains(stranger, "certificate verify failed")
        trusted.write_bytes(ours.files[0].read_bytes())
        self.assertEqual(self.leads(stranger).stop(), 0)

        unknown = self.eplbd(etcd.urls, ca=str(ours.files[0]))
        self.complains(unknown, "alert (bad certificate|certificate required)")
        by_another_name = self.eplbd(named(etcd.urls), ca=str(ours.files[0]), **own)
        self.complains(by_another_name, "certificate verify failed")


class Users(AccessTest):
    def begin(self, *flags):
        self.etcd = Etcd(flags=["--bcrypt-cost", "4", *flags])
        self.addCleanup(self.etcd.close)
        self.etcd.start()
        for user in ("root", "eplbd"):
            self.auth("user/add", name=user, password="right")
            self.auth("role/add", name=user)
            self.auth("user/grant", user=user, role=user)
        self.auth("enable")
        self.etcd.token = self.token("root")

    def auth(self, path, **body):
        answer = self.etcd.ask(f"auth/{path}", body)
        self.assertNotIn("error", answer)
        return answer

    def token(self, user):
        self.etcd.token = ""
        answer = self.etcd.ask("auth/authenticate", {"name": user, "password": "right"})
        self.assertIn("token", answer)
        return answer["token"]

    def permit(self):
        self.auth("role/grant", name="eplbd",
                  perm={"permType": "READWRITE", "key": encoded("/eplbd/test/"),
                        "range_end": encoded("/eplbd/test0")})

    def test_passwords_and_rights(self):
        self.begin()
        password = self.secret("wrong\n")
        daemon = self.eplbd(self.etcd.urls, user="eplbd", password=password)
        self.complains(daemon, "etcd refused auth/authenticate: etcdserver: authentication failed")
        self.secret("right\n")
        self.complains(daemon, "etcd refused kv/range: etcdserver: permission denied")
        self.permit()
        self.leads(daemon)
        os.chmod(password, 0o644)
        daemon.stop()
        daemon.begin()
        self.assertEqual(daemon.process.wait(30), 78)
        self.assertIn(f"ha.password: cannot use {password}: anybody may read this secret", daemon.log())
        daemon.process = None

    def test_tokens_end(self):
        openssl("genrsa", "-out", self.folder / "jwt.key", 2048)
        openssl("rsa", "-in", self.folder / "jwt.key", "-pubout", "-out", self.folder / "jwt.pub")
        self.begin("--auth-token", f"jwt,pub-key={self.folder}/jwt.pub,"
                   f"priv-key={self.folder}/jwt.key,sign-method=RS256,ttl=2s")
        self.permit()
        daemon = self.leads(self.eplbd(self.etcd.urls, user="eplbd", password=self.secret("right"), ttl=LONG))
        later = self.token("eplbd")  # than the daemon's: once this one is no good, no other is

        def refused():
            self.etcd.token = later
            return "error" in self.etcd.ask("kv/range", {"key": encoded("/eplbd/test/leader")})

        eventually(refused, "the token expired")
        self.assertTrue(self.saves(daemon, "resume"))
        # Whatever changes of users and roles ends all tokens.
        self.etcd.token = self.token("root")
        self.auth("role/add", name="another")
        self.assertTrue(self.saves(daemon, "pause"))
        self.assertEqual(daemon.metrics()("leader"), 1)


@unittest.skipUnless(SHIM, "set EPLBD_FAULT_SHIM to the built shim")
class Names(AccessTest):
    def test_a_resolver_that_hangs_costs_no_lease(self):
        etcd = Etcd()
        self.addCleanup(etcd.close)
        etcd.start()
        plan = self.folder / "plan"
        plan.write_text("")
        daemon = Daemon(ha={"etcd": named(etcd.urls), "ttl": LONG})
        self.addCleanup(self._end, daemon)
        daemon.environment = {"LD_PRELOAD": SHIM, "EPLBD_FAULT_PLAN": str(plan)}
        self.leads(daemon.start())
        plan.write_text("names hang")
        etcd.kill()
        etcd.start()
        # By a connection of its own to where etcd was.
        self.assertTrue(self.saves(daemon, "resume"))
        self.assertEqual(daemon.metrics()("leader"), 1)
        self.assertEqual(daemon.stop(), 0)


if __name__ == "__main__":
    unittest.main()
