# SPDX-License-Identifier: Apache-2.0
"""What a daemon may take while it is attacked, enforced where the machine lets us and measured
everywhere: memory by a cgroup, descriptors, log, processor time."""

import os
import re
import threading
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
MIB = 1 << 20


def granted(file: str, line: str) -> int:
    """Bytes, as a file that ships grants them."""
    text = (ROOT / file).read_text()
    number, unit = re.search(rf"{line}(\d+)([MG])", text).groups()
    return int(number) * {"M": MIB, "G": 1024 * MIB}[unit]


MEMORY = granted("packaging/kubernetes/base/eplbd.k8s.yaml", "limits: {memory: ")
MEMORY_OF_UNIT = granted("systemd/eplbd.service", "MemoryMax=")
LOG_BYTES_PER_SECOND = 4000
LOG_BYTES_AT_ONCE = 10_000  # each kind of line once
DESCRIPTORS = 600  # 128 HTTP, 128 control, and what an attack here opens besides

# Of version 1 and 2: where the groups are, and the file with the limit.
HIERARCHIES = (
    (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"),
    (Path("/sys/fs/cgroup"), "memory.max"),
)


def memory_cgroup(limit: int) -> Path | None:
    """A new group with the limit; None where we may not, or no such controller is there."""
    name = f"eplbd-test-{os.getpid()}-{time.monotonic_ns()}"
    for hierarchy, file in HIERARCHIES:
        group = hierarchy / name
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            (group / file).write_text(str(limit))
            return group
        except OSError:
            group.rmdir()
    return None


class Budget:
    """Watches one daemon from begin() on."""

    def __init__(self, subject, memory: int = MEMORY) -> None:
        self.subject = subject
        self.group = memory_cgroup(memory)
        self.most_descriptors = 0

    def begin(self) -> None:
        if self.group:
            (self.group / "cgroup.procs").write_text(str(self.subject.process.pid))
        self.began = time.monotonic()
        self.cpu_before = self.subject.usage()[0]
        self.ended = threading.Event()
        self.watcher = threading.Thread(target=self._watch)
        self.watcher.start()

    def _watch(self) -> None:
        folder = f"/proc/{self.subject.process.pid}/fd"
        while not self.ended.wait(0.02):
            try:
                self.most_descriptors = max(self.most_descriptors, len(os.listdir(folder)))
            except FileNotFoundError:
                return

    def end(self) -> dict[str, float]:
        self.ended.set()
        self.watcher.join()
        took = time.monotonic() - self.began
        cpu, peak = self.subject.usage()
        return {
            "seconds": took,
            "peak_mib": peak,
            "descriptors": self.most_descriptors,
            "log_bytes": len(self.subject.log()),
            "cpu": (cpu - self.cpu_before) / took,
        }

    def ended_by_kernel(self) -> bool:
        """As it reached its limit."""
        files = [self.group / name for name in ("memory.oom_control", "memory.events")]
        text = "".join(file.read_text() for file in files if file.exists())
        return bool(re.search(r"^oom_kill [1-9]", text, re.MULTILINE))

    def close(self) -> None:
        """After the daemon ended."""
        self.ended.set()
        if self.group:
            self.group.rmdir()
