"""Man pages and completion against what the programs say of themselves.

SPDX-License-Identifier: Apache-2.0
"""

import os
import re
import tempfile
import unittest

from paths import EPLBCTL, EPLBD, PAGES, SOURCE, links_of, run

MAN = SOURCE / "docs" / "man"


def flags_of(*command):
    help_text = run(*command, "--help").stdout
    return set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", help_text))


def subcommands_of(*command):
    help_text = run(*command, "--help").stdout
    listed = re.search(r"^Subcommands:\n((?:  .*\n?)+)", help_text, re.M)
    return re.findall(r"^  ([a-z][a-z-]*)", listed[1], re.M) if listed else []


def all_commands(*command):
    yield command
    for name in subcommands_of(*command):
        yield from all_commands(*command, name)


def keys_known_in(section):
    """What the parser itself lists when it meets a key that is like none it knows."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(f"{section}: {{qqqqqqqqqq: 1}}\n" if section else "qqqqqqqqqq: 1\n")
        file.flush()
        checked = run(EPLBD, "--config", file.name, "--check-config")
    listed = re.search(r"known here: (.*)", checked.stderr + checked.stdout)
    return listed[1].split(", ") if listed else []


class ManPages(unittest.TestCase):
    def page(self, *make):
        made = run(*make)
        self.assertEqual((made.returncode, made.stderr), (0, ""))
        with tempfile.NamedTemporaryFile("w", suffix=".roff") as file:
            file.write(made.stdout)
            file.flush()
            env = dict(os.environ, MANWIDTH="200", MANROFFOPT="-ww", LC_ALL="C.UTF-8")
            shown = run("man", "--warnings", "-l", file.name, env=env)
        self.assertEqual((shown.returncode, shown.stderr), (0, ""))
        return re.sub(r".\x08|\x1b\[[0-9;]*m", "", shown.stdout)

    def test_every_flag_of_eplbd_is_in_its_page(self):
        text = self.page("cat", str(MAN / "eplbd.8"))
        flags = flags_of(EPLBD)
        self.assertIn("--check-config", flags)
        for flag in flags:
            self.assertIn(flag, text)

    def test_every_command_and_flag_of_eplbctl_is_in_its_page(self):
        text = self.page("sh", str(MAN / "eplbctl.sh"), EPLBCTL, "0")
        commands = list(all_commands(EPLBCTL))
        self.assertIn((EPLBCTL, "solve"), commands)
        for command in commands:
            self.assertIn(" ".join(command[1:]), text)
            for flag in flags_of(*command):
                self.assertIn(flag, text, command)

    def test_every_key_is_in_the_page_of_the_file(self):
        text = self.page(
            "awk", "-v", "version=0", "-f", str(MAN / "from_markdown.awk"),
            str(SOURCE / "docs" / "configuration.md"),
        )
        sections = keys_known_in("")
        self.assertGreater(len(sections), 10)
        for section in sections:
            if section in ("deployment", "mode"):
                self.assertIn(section, text)
                continue
            keys = keys_known_in(section)
            self.assertTrue(keys, section)
            for key in keys:
                self.assertIn(f"{section}.{key}", text)


class Completion(unittest.TestCase):
    def complete(self, *words):
        quoted = " ".join(f"'{word}'" for word in words)
        script = (
            f"source {SOURCE}/packaging/eplbctl.bash; COMP_WORDS=({quoted}); "
            f"COMP_CWORD={len(words) - 1}; _eplbd_complete; printf '%s\\n' \"${{COMPREPLY[@]}}\""
        )
        done = run("bash", "-c", script)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return [line for line in done.stdout.splitlines() if line]

    def test_commands(self):
        self.assertEqual(set(self.complete(EPLBCTL, "")), set(subcommands_of(EPLBCTL)))
        self.assertEqual(self.complete(EPLBCTL, "solv"), ["solve"])

    def test_flags(self):
        self.assertIn("--slots", self.complete(EPLBCTL, "solve", "--sl"))
        self.assertEqual(self.complete(EPLBD, "--check"), ["--check-config"])

    def test_values(self):
        policies = self.complete(EPLBCTL, "solve", "--policy", "")
        self.assertEqual(set(policies), {"incremental", "joint", "deepseek", "evolved"})
        self.assertEqual(self.complete(EPLBCTL, "mode", "c"), ["config"])
        self.assertEqual(self.complete(EPLBCTL, "placement", "export", "--format", "t"), ["trtllm"])
        for words in (("solve", "--loads"), ("placement", "diff"), ("load", "--curve-secret-key")):
            self.assertIn("/etc/hostname", self.complete(EPLBCTL, *words, "/etc/hostn"))


def anchors_of(page):
    """The anchors that GitHub gives to a page's headings."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
    headings = re.findall(r"^#+ (.*)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


class Links(unittest.TestCase):
    def test_every_link_leads_somewhere(self):
        self.assertGreater(len(PAGES), 20)
        for page in PAGES:
            for link in links_of(page):
                name, _, anchor = link.partition("#")
                target = page.parent / name if name else page
                with self.subTest(page=page.name, link=link):
                    self.assertTrue(target.exists())
                    if anchor:
                        self.assertIn(anchor, anchors_of(target))


if __name__ == "__main__":
    unittest.main()
