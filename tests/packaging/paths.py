"""Where the programs under test, their sources and their packages are.

SPDX-License-Identifier: Apache-2.0
"""

import os
import pathlib
import re
import subprocess
import tempfile

SOURCE = pathlib.Path(__file__).resolve().parents[2]
EPLBD = os.environ["EPLBD"]
EPLBCTL = os.environ["EPLBCTL"]
BUILD = pathlib.Path(os.environ["EPLBD_BUILD"])
# Every page of Markdown.
PAGES = sorted(path for folder in (".", "docs", "packaging", "clients", "tests")
               for path in (SOURCE / folder).glob("*.md" if folder == "." else "**/*.md")
               if "node_modules" not in path.parts)


def run(*command, **options):
    return subprocess.run(command, text=True, capture_output=True, timeout=200, **options)


def links_of(page: pathlib.Path) -> list[str]:
    """Where a page of Markdown points to, other than to other sites."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
    found = re.findall(r"\]\(([^)\s]+)\)|\b(?:src|srcset)=\"([^\"]+)\"", text)
    return [a or b for a, b in found if not re.match(r"[a-z]+:", a or b)]


def make_packages(folder: str) -> list[pathlib.Path]:
    """The .deb files of this build, in `folder`."""
    made = run(
        os.environ["CPACK"], "-G", "DEB", "-B", folder, "--config", str(BUILD / "CPackConfig.cmake")
    )
    if made.returncode != 0:
        raise AssertionError(made.stdout + made.stderr)
    return sorted(pathlib.Path(folder).glob("*.deb"))


def with_version(package: pathlib.Path, version: str) -> pathlib.Path:
    """The same package under another version, beside it: what an upgrade needs."""
    with tempfile.TemporaryDirectory() as folder:
        tree = pathlib.Path(folder) / "tree"
        subprocess.run(["dpkg-deb", "-R", package, tree], check=True)
        control = tree / "DEBIAN" / "control"
        lines = control.read_text().splitlines(keepends=True)
        control.write_text(
            "".join(f"Version: {version}\n" if l.startswith("Version:") else l for l in lines)
        )
        out = package.with_name(package.name.replace("_", f"_{version}~from_", 1))
        subprocess.run(["dpkg-deb", "--root-owner-group", "-b", tree, out], check=True,
                       stdout=subprocess.DEVNULL)
        return out
