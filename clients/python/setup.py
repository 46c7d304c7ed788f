# SPDX-License-Identifier: Apache-2.0
"""Puts libeplb into the wheel, and its sources into the source distribution.

In a checkout the sources are two folders up; in a source distribution they are in native/.
Building takes cmake 3.25, a C++20 compiler and Eigen; what is built needs none of them.
"""

import os
import pathlib
import platform
import re
import shutil
import subprocess
import tempfile

from setuptools import Distribution, setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

try:
    from setuptools.command.bdist_wheel import bdist_wheel
except ImportError:  # setuptools before 70.1
    from wheel.bdist_wheel import bdist_wheel

HERE = pathlib.Path(__file__).resolve().parent
SHIPPED = HERE / "native"
SOURCES = SHIPPED if SHIPPED.is_dir() else HERE.parents[1]
LIBRARY = "libeplb.so.1"


def lacking_tools() -> list:
    """Those that pip brings because this machine has none, or an old one."""
    lacking = [] if shutil.which("ninja") else ["ninja"]
    cmake = shutil.which("cmake")
    told = subprocess.run([cmake, "--version"], capture_output=True, text=True).stdout if cmake else ""
    version = re.search(r"(\d+)\.(\d+)", told)
    if version is None or tuple(map(int, version.groups())) < (3, 25):
        lacking.append("cmake>=3.25")
    return lacking


def build_library(target: pathlib.Path) -> None:
    options = ["-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release", "-DEPLBD_LIBRARY_ONLY=ON", "-DEPLB_STATIC_RUNTIME=ON"]
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["cmake", "-S", SOURCES, "-B", folder, *options], check=True)
        jobs = str(os.cpu_count() or 1)
        subprocess.run(["cmake", "--build", folder, "--parallel", jobs, "--target", "eplb"], check=True)
        subprocess.run(["strip", "--strip-unneeded", "-o", target, pathlib.Path(folder) / "lib" / LIBRARY], check=True)


def platform_tag(library: pathlib.Path) -> str:
    """Of systems whose C library is as new as the newest of its symbols that the library asks for."""
    asked = re.findall(rb"GLIBC_2\.(\d+)", library.read_bytes())
    return f"manylinux_2_{max(map(int, asked))}_{platform.machine()}"


class BuildWithLibrary(build_py):
    def run(self) -> None:
        super().run()
        in_place = getattr(self, "editable_mode", False)
        folder = HERE if in_place else pathlib.Path(self.build_lib).resolve()
        build_library(folder / "eplbd" / LIBRARY)


class OfOnePlatform(Distribution):
    def has_ext_modules(self) -> bool:
        return True


class WheelOfEveryPython(bdist_wheel):
    """ctypes over a C ABI: one wheel for every CPython."""

    def get_tag(self):
        library = pathlib.Path(self.get_finalized_command("build_py").build_lib) / "eplbd" / LIBRARY
        return "py3", "none", platform_tag(library)


class SourcesWithLibrary(sdist):
    def make_release_tree(self, base_dir, files) -> None:
        super().make_release_tree(base_dir, files)
        native = pathlib.Path(base_dir) / "native"
        native.mkdir(exist_ok=True)
        for file in ("CMakeLists.txt", "LICENSE"):
            shutil.copy(SOURCES / file, native)
        for folder in ("core", "lib"):
            shutil.copytree(SOURCES / folder, native / folder, dirs_exist_ok=True)


setup(
    distclass=OfOnePlatform,
    setup_requires=lacking_tools(),
    cmdclass={"build_py": BuildWithLibrary, "bdist_wheel": WheelOfEveryPython, "sdist": SourcesWithLibrary},
)
