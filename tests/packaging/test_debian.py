"""The Debian packages: what lintian calls an error is one, and what is inside.

SPDX-License-Identifier: Apache-2.0
"""

import os
import pathlib
import shutil
import tempfile
import unittest

from paths import BUILD, SOURCE, links_of, make_packages, run


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

    def test_four_packages(self):
        wanted = {"eplbd", "libeplb1", "libeplb-dev", "python3-eplbd"}
        self.assertEqual(set(self.packages), wanted)

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

    def test_what_the_documents_show_comes_with_them(self):
        contents = self.contents("eplbd")
        pages = sorted((SOURCE / "docs").glob("*.md"))
        self.assertTrue(pages)
        for page in pages:
            for link in {page.name, *links_of(page)}:
                name = link.split("#")[0]
                if name and not name.startswith("../"):
                    self.assertIn(f"/usr/share/doc/eplbd/{name}", contents, page)

    def installed(self, *names):
        """A root that has these packages alone, and the environment to use what is in it."""
        root = tempfile.TemporaryDirectory()
        self.addCleanup(root.cleanup)
        for name in names:
            self.assertEqual(run("dpkg-deb", "-x", str(self.packages[name]), root.name).returncode, 0)
        usr = pathlib.Path(root.name) / "usr"
        clean = {k: v for k, v in os.environ.items() if k != "EPLB_LIBRARY"}
        return usr, {
            **clean, "LD_LIBRARY_PATH": str(usr / "lib"), "PKG_CONFIG_PATH": str(usr / "lib/pkgconfig"),
            "PYTHONPATH": str(usr / "lib/python3/dist-packages"), "PYTHONDONTWRITEBYTECODE": "1",
        }

    def ran(self, *command, **options):
        done = run(*command, **options)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done.stdout

    @unittest.skipUnless(shutil.which("pkg-config"), "no pkg-config")
    def test_a_c_program_is_built_with_the_library(self):
        usr, environment = self.installed("libeplb1", "libeplb-dev")
        example = str(SOURCE / "tests" / "lib" / "example.c")
        flags = self.ran("pkg-config", "--cflags", "--libs", "eplb", env=environment).split()
        self.ran("cc", "-std=c99", example, "-o", str(usr / "by-pkg-config"), *flags)
        self.assertIn("imbalance 1.0", self.ran(str(usr / "by-pkg-config"), env=environment))

        (usr / "CMakeLists.txt").write_text(
            "cmake_minimum_required(VERSION 3.25)\nproject(user C)\nfind_package(eplb 0.1 REQUIRED)\n"
            f"add_executable(by-cmake {example})\ntarget_link_libraries(by-cmake eplb::eplb)\n"
        )
        self.ran("cmake", "-S", str(usr), "-B", str(usr / "b"), "-G", "Ninja", f"-DCMAKE_PREFIX_PATH={usr}")
        self.ran("cmake", "--build", str(usr / "b"))
        self.assertIn("imbalance 1.0", self.ran(str(usr / "b" / "by-cmake"), env=environment))

    def test_only_the_library_itself_is_needed_to_run(self):
        contents = self.contents("libeplb1")
        self.assertIn("/usr/lib/libeplb.so.1", contents)
        self.assertNotIn("/usr/include/eplb.h", contents)
        shlibs = run("dpkg-deb", "-I", str(self.packages["libeplb1"]), "shlibs").stdout
        self.assertIn("libeplb 1 libeplb1", shlibs)

    def test_python_solves_with_the_library_of_the_system(self):
        usr, environment = self.installed("libeplb1", "python3-eplbd")
        answer = self.ran(
            "/usr/bin/python3", "-c",
            "import eplbd, eplbd_client, importlib.metadata as m, numpy;"
            "print(m.version('eplbd'), eplbd_client.__file__,"
            " eplbd.rebalance_experts(numpy.array([[90, 11, 10, 30]]), 6, 1, 1, 2)[2].tolist())",
            env=environment, cwd="/",
        )
        self.assertEqual(answer.split(" ", 2)[2], "[[2, 1, 1, 2]]\n")
        self.assertIn(str(usr), answer)
        contents = self.contents("python3-eplbd")
        self.assertFalse([path for path in contents if "__pycache__" in path])
        self.assertTrue([path for path in contents if path.endswith("eplbd-0.1.0.dist-info/METADATA")])


class Install(unittest.TestCase):
    def test_a_configuration_that_is_there_is_kept(self):
        with tempfile.TemporaryDirectory() as root:
            config = pathlib.Path(root) / "etc" / "eplbd" / "eplbd.yaml"
            for wanted in ((SOURCE / "config" / "eplbd.yaml").read_text(), "deployment: mine\n"):
                done = run("cmake", "--install", str(BUILD), "--component", "eplbd",
                           env={**os.environ, "DESTDIR": root})
                self.assertEqual(done.returncode, 0, done.stderr)
                self.assertEqual(config.read_text(), wanted)
                config.write_text("deployment: mine\n")


if __name__ == "__main__":
    unittest.main()
