# SPDX-License-Identifier: Apache-2.0
"""A network namespace, and links to it that drop what they are given, without a word to either end."""

from __future__ import annotations

import ipaddress
import itertools
import os
import shutil
import subprocess
import unittest

from harness import eventually

NOBODY = "02:00:00:00:00:01"  # a station that is on no link


class Network:
    """Gone with us, however we end: its holder reads from us."""

    numbers = itertools.count()  # the kernel takes its time to remove what is gone

    def __init__(self, links: int) -> None:
        self.number = next(self.numbers)
        if not shutil.which("ip"):
            raise unittest.SkipTest("no ip: install iproute2")
        self.holder = subprocess.Popen(["unshare", "--net", "cat"], stdin=subprocess.PIPE,
                                       stderr=subprocess.DEVNULL)
        try:
            eventually(lambda: self.holder.poll() is not None or self.is_apart(), "a namespace")
            if self.holder.poll() is not None:
                raise unittest.SkipTest("we may make no network namespace")
            for link in range(links):
                self._connect(link)
            self.run("ip", "link", "set", "lo", "up", inside=True)
        except BaseException:
            self.close()
            raise

    def is_apart(self) -> bool:
        own, theirs = (os.stat(f"/proc/{who}/ns/net").st_ino for who in ("self", self.holder.pid))
        return own != theirs

    @property
    def inside(self) -> list[str]:
        """The words before a command that runs in there."""
        return ["nsenter", f"--net=/proc/{self.holder.pid}/ns/net", "--"]

    def run(self, *command: str, inside: bool = False) -> None:
        done = subprocess.run([*(self.inside if inside else ()), *command], timeout=20, text=True,
                              capture_output=True)
        if "not permitted" in done.stderr:
            raise unittest.SkipTest(f"we may not: {' '.join(command)}")
        if done.returncode:
            raise AssertionError(f"{' '.join(command)}: {done.stderr}")

    def ends(self, link: int) -> list[tuple[bool, str, str]]:
        """(inside, device, address) of ours and of theirs; of the range that is for such tests."""
        block = (4 * os.getpid() + self.number) % 8192
        first = ipaddress.ip_address("198.18.0.0") + 16 * block + 4 * link
        return [(False, f"ep{os.getpid()}{'abcd'[link]}{self.number}", str(first + 1)),
                (True, f"eth{link}", str(first + 2))]

    def address(self, link: int) -> str:
        """By which what runs in there is reached."""
        return self.ends(link)[1][2]

    def _connect(self, link: int) -> None:
        (_, device, _), (_, peer, _) = self.ends(link)
        self.run("ip", "link", "add", device, "type", "veth", "peer", "name", peer,
                 "netns", str(self.holder.pid))
        for inside, device, address in self.ends(link):
            self.run("ip", "address", "add", f"{address}/30", "dev", device, inside=inside)
            self.run("ip", "link", "set", device, "up", inside=inside)

    def cut(self, link: int) -> None:
        """Both ends send to nobody from here on."""
        ours, theirs = self.ends(link)
        for (inside, device, _), (_, _, other) in ((ours, theirs), (theirs, ours)):
            self.run("ip", "neighbour", "replace", other, "lladdr", NOBODY, "dev", device,
                     "nud", "permanent", inside=inside)

    def mend(self, link: int) -> None:
        ours, theirs = self.ends(link)
        for (inside, device, _), (_, _, other) in ((ours, theirs), (theirs, ours)):
            self.run("ip", "neighbour", "del", other, "dev", device, inside=inside)

    def close(self) -> None:
        self.holder.stdin.close()
        self.holder.wait(10)
