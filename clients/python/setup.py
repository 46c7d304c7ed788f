# SPDX-License-Identifier: Apache-2.0
"""Puts libeplb into the wheel, and its sources into the source distribution.

In a checkout the sources are two folders up; in a source distribution they are in native/.
Building takes cmake 3.25, a C++20 compiler and Eigen; what is built needs none of them.
"""

import pathlib
import platform
import re
import shutil
import subprocess

from setuptools import setup
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


def build_library(folder: pathlib.Path) -> pathlib.Path:
    options = ["-DCMAKE_BUILD_TYPE=Release", "-DEPLBD_LIBRARY_ONLY=ON", "-DEPLB_STATIC_RUNTIME=ON"]
    subprocess.run(["cmake", "-S", SOURCES, "-B", folder, *options], check=True)
    subprocess.run(["cmake", "--build", folder, "--parallel", "2", "--target", "eplb"], check=True)
    return (folder / "lib" / LIBRARY).resolve()


def oldest_glibc(library: pathlib.Path) -> str:
    """The newest version of it that the library asks for, as a wheel's tag has it."""
    asked = re.findall(rb"GLIBC_2\.(\d+)", library.read_bytes())
    return f"manylinux_2_{max(map(int, asked))}_{platform.machine()}"


class BuildWithLibrary(build_py):
    def run(self) -> None:
        super().run()
        package = pathlib.Path(self.build_lib).resolve() / "eplbd"
        built = build_library(pathlib.Path(self.get_finalized_command("build").build_temp).resolve() / "native")
        shutil.copy(built, package / LIBRARY)
        subprocess.run(["strip", "--strip-unneeded", package / LIBRARY], check=True)


class WheelOfEveryPython(bdist_wheel):
    """ctypes over a C ABI: one wheel for every CPython, of one platform."""

    def finalize_options(self) -> None:
        super().finalize_options()
        self.root_is_pure = False

    def get_tag(self):
        library = pathlib.Path(self.get_finalized_command("build_py").build_lib) / "eplbd" / LIBRARY
        return "py3", "none", oldest_glibc(library)


class SourcesWithLibrary(sdist):
    def make_release_tree(self, base_dir, files) -> None:
        super().make_release_tree(base_dir, files)
        native = pathlib.Path(base_dir) / "native"
        native.mkdir(exist_ok=True)
        shutil.copy(SOURCES / "CMakeLists.txt", native)
        for folder in ("core", "lib"):
            shutil.copytree(SOURCES / folder, native / folder, dirs_exist_ok=True)


setup(cmdclass={"build_py": BuildWithLibrary, "bdist_wheel": WheelOfEveryPython, "sdist": SourcesWithLibrary})
