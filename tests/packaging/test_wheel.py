"""The Python package: built from a source distribution without a network, used without a compiler.

SPDX-License-Identifier: Apache-2.0
"""

import os
import pathlib
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

from paths import SOURCE

SOLVE = """
import shutil, numpy, eplbd, eplbd.rebalancer
assert not any(map(shutil.which, ("cc", "c++", "gcc", "g++", "cmake", "ninja")))
maps, slots_of, count = eplbd.rebalance_experts(numpy.array([[90, 11, 10, 30]]), 6, 1, 1, 2)
assert count.tolist() == [[2, 1, 1, 2]], count
balancer = eplbd.Rebalancer(layers=1, logical_experts=4, slots=6, gpus=2)
assert balancer.decide(now=1).verdict == "no_counts"
print(eplbd.__file__)
"""
# Of a system that has no more than Python.
SYSTEM = {"libm.so.6", "libc.so.6", "libgcc_s.so.1", "ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"}


def run(*command, **options):
    done = subprocess.run(command, text=True, capture_output=True, timeout=800, **options)
    if done.returncode != 0:
        raise AssertionError(f"{command}\n{done.stdout}\n{done.stderr}")
    return done.stdout


def pythons():
    found = {}
    for name in ["python3", *(f"python3.{minor}" for minor in range(9, 20))]:
        path = shutil.which(name)
        if path:  # one that runs, and can make environments
            asked = subprocess.run(
                [path, "-c", "import ensurepip, sys; print(sys.version_info[:2])"],
                text=True, capture_output=True,
            )
            if asked.returncode == 0:
                found[asked.stdout.strip()] = path
    return found


class Venv:
    def __init__(self, folder, python, *options):
        run(python, "-m", "venv", *options, str(folder))
        self.python = str(folder / "bin" / "python")

    def pip(self, *arguments):
        return run(self.python, "-m", "pip", "install", "-q", *arguments)

    def solve(self):
        clean = {k: v for k, v in os.environ.items() if k not in ("EPLB_LIBRARY", "PYTHONPATH")}
        return run(self.python, "-c", SOLVE, env={**clean, "PATH": "/nowhere"}, cwd="/")


class Wheel(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        lacking = [m for m in ("pip", "setuptools", "wheel") if subprocess.run(
            [sys.executable, "-c", f"import {m}"], capture_output=True).returncode]
        if lacking:
            raise unittest.SkipTest(f"no {', '.join(lacking)}")
        temporary = tempfile.TemporaryDirectory()
        cls.addClassCleanup(temporary.cleanup)
        cls.folder = pathlib.Path(temporary.name)
        checkout = cls.folder / "checkout"
        leave = shutil.ignore_patterns("build", "dist", "*.egg-info", "__pycache__", "libeplb.so.1")
        for part in ("core", "lib", "clients/python"):
            shutil.copytree(SOURCE / part, checkout / part, ignore=leave)
        for part in ("CMakeLists.txt", "LICENSE"):
            shutil.copy(SOURCE / part, checkout)
        build = f"from setuptools import build_meta; build_meta.build_sdist({str(cls.folder)!r})"
        run(sys.executable, "-c", build, cwd=checkout / "clients" / "python")
        shutil.rmtree(checkout)
        (cls.sources,) = cls.folder.glob("*.tar.gz")
        offline = ("--no-index", "--no-deps", "--no-build-isolation")
        run(sys.executable, "-m", "pip", "wheel", *offline, "-w", str(cls.folder), str(cls.sources))
        (cls.wheel,) = cls.folder.glob("*.whl")

    def test_it_is_for_every_python_of_this_platform(self):
        glibc = int(platform.libc_ver()[1].split(".")[1])
        tag = re.fullmatch(r"eplbd-[\d.]+-py3-none-manylinux_2_(\d+)_(\w+)\.whl", self.wheel.name)
        self.assertIsNotNone(tag, self.wheel.name)
        self.assertEqual(tag[2], platform.machine())
        self.assertLessEqual(int(tag[1]), glibc)

    def test_the_library_takes_only_what_every_system_has(self):
        unpacked = self.folder / "unpacked"
        shutil.unpack_archive(self.wheel, unpacked, "zip")
        needed = run("readelf", "--dynamic", str(unpacked / "eplbd" / "libeplb.so.1"))
        self.assertLessEqual(set(re.findall(r"NEEDED.*\[(.*)\]", needed)), SYSTEM)

    def test_it_solves_without_a_compiler_and_without_a_network(self):
        venv = Venv(self.folder / "offline", sys.executable, "--system-site-packages")
        venv.pip("--no-index", "--no-deps", str(self.wheel))
        self.assertIn(str(self.folder), venv.solve())

    def test_it_solves_in_a_clean_environment_of_every_python(self):
        for version, python in pythons().items():
            with self.subTest(python=version):
                venv = Venv(self.folder / f"clean{version}", python)
                try:
                    venv.pip("--only-binary", ":all:", "numpy", "pyzmq", "msgpack")
                except AssertionError as problem:
                    self.skipTest(f"PyPI cannot be reached: {str(problem).splitlines()[-1]}")
                venv.pip("--no-index", str(self.wheel))
                self.assertIn(str(self.folder), venv.solve())


if __name__ == "__main__":
    unittest.main()
