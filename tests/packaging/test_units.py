"""The systemd units: nothing that systemd warns of, little exposure, two of one kind.

SPDX-License-Identifier: Apache-2.0
"""

import os
import pathlib
import re
import shutil
import tempfile
import unittest

from paths import EPLBCTL, EPLBD, SOURCE, run

UNITS = [SOURCE / "systemd" / name for name in ("eplbd.service", "eplbd@.service")]
MOST_EXPOSURE = 1.5


@unittest.skipUnless(shutil.which("systemd-analyze"), "no systemd-analyze")
class Units(unittest.TestCase):
    def test_systemd_finds_nothing_to_warn_of(self):
        # verify exits 0 even for keys it does not know: what it prints is the test.
        with tempfile.TemporaryDirectory() as folder:
            for unit in UNITS:
                text = unit.read_text()
                text = text.replace("/usr/bin/eplbd ", EPLBD + " ")
                text = text.replace("/usr/bin/eplbctl ", EPLBCTL + " ")
                name = unit.name.replace("@", "@decode")
                (pathlib.Path(folder) / name).write_text(text)
                verified = run("systemd-analyze", "verify", "--man=no", os.path.join(folder, name))
                self.assertEqual((verified.returncode, verified.stderr), (0, ""), unit.name)

    def test_exposure(self):
        for unit in UNITS:
            shown = run("systemd-analyze", "security", "--offline=true", "--no-pager", str(unit))
            score = re.search(r"exposure level for \S+: ([0-9.]+)", shown.stdout)
            self.assertIsNotNone(score, shown.stdout + shown.stderr)
            self.assertLessEqual(float(score[1]), MOST_EXPOSURE, unit.name)

    def test_the_template_differs_in_its_instance_alone(self):
        def directives(unit, instance, folder):
            lines = [l for l in unit.read_text().splitlines() if l and not l.startswith("#")]
            text = "\n".join(l for l in lines if not l.startswith("RuntimeDirectoryPreserve"))
            return text.replace(instance, "NAME").replace(folder, "FOLDER")

        plain = directives(UNITS[0], "/etc/eplbd/eplbd.yaml", "Directory=eplbd\n")
        template = directives(UNITS[1], "/etc/eplbd/%i.yaml", "Directory=eplbd/%i\n")
        self.assertEqual(plain, template.replace(" for %i", ""))


if __name__ == "__main__":
    unittest.main()
