"""pyproject.toml -> a dist-info folder: what importlib.metadata reads of an installed package.

SPDX-License-Identifier: Apache-2.0
"""

import pathlib
import sys
import tomllib


def main() -> None:
    source, target = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    project = tomllib.loads(source.read_text())["project"]
    target.mkdir(exist_ok=True)
    groups = project.get("entry-points", {})
    lines = []
    for group, entries in groups.items():
        lines += [f"[{group}]", *(f"{name} = {where}" for name, where in entries.items()), ""]
    (target / "entry_points.txt").write_text("\n".join(lines))
    (target / "INSTALLER").write_text("dpkg\n")
    requires = "".join(f"Requires-Dist: {name}\n" for name in project["dependencies"])
    (target / "METADATA").write_text(
        "Metadata-Version: 2.1\n"
        f"Name: {project['name']}\nVersion: {project['version']}\n"
        f"Summary: {project['description']}\n"
        f"Requires-Python: {project['requires-python']}\n{requires}"
    )


if __name__ == "__main__":
    main()
