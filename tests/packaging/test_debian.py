"""The Debian packages: what lintian calls an error is one, and what is inside.

SPDX-License-Identifier: Apache-2.0
"""

import shutil
import tempfile
import unittest

from paths import make_packages, run


@unittest.skipUnless(shutil.which("dpkg-shlibdeps"), "no dpkg-dev")
class Packages(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.folder.cleanup)
        cls.packages = {p.name.split("_")[0]: p for p in make_packages(cls.folder.name)}

    def contents(self, name):
        listed = run("dpkg-deb", "-c", str(self.packages[name])).stdout.splitlines()
        return {line.split()[5][1:]: line.split()[:2] for line in listed}

    def test_two_packages(self):
        self.assertEqual(set(self.packages), {"eplbd", "python3-eplbd-client"})

    @unittest.skipUnless(shutil.which("lintian"), "no lintian")
    def test_lintian_finds_no_error(self):
        for package in self.packages.values():
            checked = run("lintian", "--no-cfg", "--allow-root", "--fail-on", "error", str(package))
            self.assertEqual(checked.returncode, 0, checked.stdout + checked.stderr)

    def test_the_daemon_comes_with_what_it_needs(self):
        contents = self.contents("eplbd")
        for path in (
            "/usr/bin/eplbd", "/usr/bin/eplbctl", "/etc/eplbd/eplbd.yaml",
            "/usr/lib/systemd/system/eplbd.service", "/usr/lib/systemd/system/eplbd@.service",
            "/usr/lib/sysusers.d/eplbd.conf", "/usr/share/man/man8/eplbd.8.gz",
            "/usr/share/man/man1/eplbctl.1.gz", "/usr/share/man/man5/eplbd.yaml.5.gz",
            "/usr/share/bash-completion/completions/eplbctl",
            "/usr/share/eplbd/eplbd.rules.yml", "/usr/share/eplbd/grafana-dashboard.json",
            "/usr/share/doc/eplbd/runbook.md",
        ):
            self.assertIn(path, contents)
            self.assertEqual(contents[path][1], "root/root")
        depends = run("dpkg-deb", "-f", str(self.packages["eplbd"]), "Depends").stdout
        for library in ("libzmq5", "libyaml-cpp0.7", "libsystemd0", "libstdc++6"):
            self.assertIn(library, depends)

    def test_the_client_is_importable_python(self):
        contents = self.contents("python3-eplbd-client")
        self.assertIn("/usr/lib/python3/dist-packages/eplbd_client/__init__.py", contents)
        self.assertFalse([path for path in contents if "__pycache__" in path])
        self.assertTrue([path for path in contents if path.endswith(".dist-info/METADATA")])


if __name__ == "__main__":
    unittest.main()
