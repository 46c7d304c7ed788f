"""Commands and configurations in the documents against the programs that they are for.

SPDX-License-Identifier: Apache-2.0
"""

import re
import shlex
import tempfile
import unittest
from itertools import chain
from pathlib import Path

import yaml

from paths import EPLBCTL, EPLBD, PAGES, SOURCE, run

OFFLINE = ("replay", "advise", "solve", "load", "keygen")
USAGE = {"eplbctl": 2, "eplbd": 64}
SHAPE = {"layers": 2, "logical_experts": 8, "slots": 12, "gpus": 4}
# What stands for something in a page, and what may stand there.
STANDS_FOR = {"N": "1", "S": "1", "VERSION": "1", "A,B,C": "1,2,3", "F": "json", "ITEM": "joint", "M": "observe"}


def pieces(text):
    """The commands of a line of shell."""
    for piece in re.split(r"&&|\|\|?|;|<<|>", text):
        try:
            words = shlex.split(piece, comments=True)
        except ValueError:
            continue
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            words = words[1:]
        if words and words[0] in USAGE:
            yield words


def first_choice(text):
    """A usage line with its options taken and the first of its alternatives chosen."""
    text = text.replace("\\|", "|").replace("...", "")
    text = re.sub(r"\(([^()|]*)\|[^()]*\)", r"\1", text)
    while "[" in text:
        text, before = re.sub(r"\[([^\[\]|]*)(\|[^\[\]]*)?\]", r"\1", text), text
        if text == before:
            return ""
    return re.sub(r"(\w+)(\|\w+)+", r"\1", text)


def copied(page):
    """What a reader copies."""
    for block in re.findall(r"^```sh\n(.*?)^```", page.read_text(), re.S | re.M):
        for line in block.replace("\\\n", " ").splitlines():
            yield from pieces(line)


def mentioned(page):
    """What the text names; what a command needs besides may be missing."""
    prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.S | re.M)
    for usage in re.findall(r"^    (eplb.*)$", prose, re.M):
        yield from pieces(first_choice(usage))
    for span in re.findall(r"`([^`\n]+)`", prose):
        yield from pieces(first_choice(span))
    if page.name == "eplbctl.md":
        table = re.search(r"\| command \| does \|\n(.*?)\n\n", prose, re.S)[1]
        for row in table.splitlines()[1:]:
            for span in re.findall(r"`([^`]+)`", row.replace("\\|", "~").split("|")[1]):
                yield from pieces(first_choice("eplbctl " + span.replace("~", "|")))


class Commands(unittest.TestCase):
    def tried(self, words):
        """Run where nothing is: no daemon answers, no file is there."""
        with tempfile.TemporaryDirectory() as empty:
            nowhere = f"{empty}/none"
            program, *rest = (STANDS_FOR.get(word, word).replace("/etc/eplbd", nowhere) for word in words)
            if "--deployment" in rest:
                at = rest.index("--deployment")
                rest[at : at + 2] = ["--socket", nowhere]
            elif "load" in rest and "--config" not in rest:
                rest += ["--config", nowhere]
            elif program == "eplbctl" and not {"--socket", "--config", *OFFLINE} & set(rest):
                rest = ["--socket", nowhere, *rest]
            return run(EPLBCTL if program == "eplbctl" else EPLBD, *rest, cwd=empty)

    def test_every_one_is_understood(self):
        tried = 0
        for page in PAGES:
            for words, whole in chain(((w, True) for w in copied(page)), ((w, False) for w in mentioned(page))):
                if len(words) == 1 or words[1].isupper():
                    continue  # the program itself, or any command
                with self.subTest(page=page.name, command=" ".join(words)):
                    done = self.tried(words)
                    if whole or "required" not in done.stderr and "is missing" not in done.stderr:
                        self.assertNotEqual(done.returncode, USAGE[words[0]], done.stderr)
                    tried += 1
        self.assertGreater(tried, 100)

    def test_one_that_is_wrong_is_found(self):
        for wrong in ("eplbctl statsu", "eplbctl pause --until 3h", "eplbctl pause --for 3", "eplbd --check"):
            (words,) = pieces(wrong)
            self.assertEqual(self.tried(words).returncode, USAGE[words[0]], wrong)


class Configurations(unittest.TestCase):
    def test_every_one_is_taken(self):
        tried = 0
        for page in PAGES:
            text = page.read_text()
            for block in re.findall(r"^```yaml\n(.*?)^```", text, re.S | re.M):
                config = yaml.safe_load(block)
                if "scrape_configs" in config:
                    continue
                config.setdefault("deployment", "any")
                config.setdefault("topology", SHAPE)
                with self.subTest(page=page.name, block=block), tempfile.TemporaryDirectory() as folder:
                    path = Path(folder) / "eplbd.yaml"
                    path.write_text(yaml.safe_dump(config))
                    # Files that it names are not here.
                    done = run(EPLBD, "--config", str(path), "--print-config")
                    self.assertEqual((done.returncode, done.stderr), (0, ""))
                    tried += 1
        self.assertGreater(tried, 5)

    def test_the_readme_makes_one_of_the_shipped_file(self):
        (edit,) = re.findall(r"^(sed -i .*) /etc/eplbd/eplbd.yaml$", (SOURCE / "README.md").read_text(), re.M)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "eplbd.yaml"
            path.write_text((SOURCE / "config" / "eplbd.yaml").read_text())
            self.assertEqual(run("sh", "-c", f"{edit} {path}").returncode, 0)
            done = run(EPLBD, "--config", str(path), "--check-config")
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            config = yaml.safe_load(path.read_text())
        self.assertEqual((config["deployment"], config["mode"]), ("deepseek-v3", "observe"))
        self.assertEqual((config["topology"]["gpus"], config["topology"]["nodes"]), (8, 1))


if __name__ == "__main__":
    unittest.main()
