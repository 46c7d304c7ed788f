"""The packages under a systemd that really boots, in a container over an overlay of this system:
what booted.py does there, and what it found, one test a finding. Changes nothing outside.

SPDX-License-Identifier: Apache-2.0
"""

import fcntl
import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import unittest

from paths import SOURCE, make_packages, run, with_version

HERE = pathlib.Path(__file__).parent
BOOT_SECONDS = 150

# The overlay's upper layer is a tmpfs in a mount namespace that ends with this script.
BOOT = """
set -eu
mount -t tmpfs tmpfs "$WORK/overlay"
cd "$WORK/overlay"
mkdir upper work root
mount -t overlay overlay -o lowerdir=/,upperdir="$PWD/upper",workdir="$PWD/work" root
cp -r "$WORK/check" root/check
cp "$WORK/check/check.service" root/etc/systemd/system/
rm -rf root/var/lib/eplbd root/etc/eplbd root/run/eplbd root/usr/sbin/policy-rc.d
for unit in systemd-networkd-wait-online NetworkManager-wait-online ifupdown-wait-online; do
  ln -sf /dev/null "root/etc/systemd/system/$unit.service"
done
timeout "$BOOT_SECONDS" systemd-nspawn --quiet --register=no --keep-unit --private-network \
  --machine="eplbd-test-$$" --directory="$PWD/root" --boot --console=read-only \
  systemd.unit=check.service </dev/null >"$WORK/console" 2>&1 || true
cp root/check/out/* "$WORK/out/" 2>/dev/null || true
"""

CHECK_SERVICE = """
[Unit]
Description=What is checked of eplbd
Requires=basic.target
After=basic.target
FailureAction=poweroff
SuccessAction=poweroff

[Service]
Type=oneshot
ExecStart=/usr/bin/python3 -B /check/booted.py
StandardOutput=file:/check/out/stdout
StandardError=file:/check/out/stderr
"""


def why_not():
    if os.geteuid() != 0:
        return "needs root to boot a container"
    for program in ("systemd-nspawn", "unshare", "dpkg-shlibdeps"):
        if not shutil.which(program):
            return f"{program} is not installed"
    with tempfile.TemporaryDirectory() as folder:
        tried = run(
            "unshare", "-m", "--propagation", "private", "sh", "-c",
            f"cd {folder} && mount -t tmpfs t . && mkdir u w r && "
            "mount -t overlay o -o lowerdir=/etc,upperdir=u,workdir=w r",
        )
    return None if tried.returncode == 0 else f"no overlay can be mounted: {tried.stderr.strip()}"


class Booted(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        reason = why_not()
        if reason:
            raise unittest.SkipTest(reason)
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        work = pathlib.Path(folder.name)
        for name in ("overlay", "out", "check/out", "packages"):
            (work / name).mkdir(parents=True)
        for package in make_packages(str(work / "packages")):
            name = package.name.split("_")[0]
            shutil.copy(package, work / "check" / f"{name}.deb")
            if name == "eplbd":
                shutil.copy(with_version(package, "99.0"), work / "check" / "eplbd-99.deb")
        shutil.copy(HERE / "booted.py", work / "check")
        shutil.copy(SOURCE / "config" / "eplbd.yaml", work / "check" / "shipped.yaml")
        (work / "check" / "check.service").write_text(CHECK_SERVICE)
        environment = dict(os.environ, WORK=str(work), BOOT_SECONDS=str(BOOT_SECONDS))
        with open("/tmp/eplbd-nspawn.lock", "w") as lock:  # containers share cgroup names
            fcntl.flock(lock, fcntl.LOCK_EX)
            subprocess.run(
                ["unshare", "-m", "--propagation", "private", "sh", "-c", BOOT],
                env=environment, check=True,
            )

        def text(name):
            path = work / name
            return path.read_text(errors="replace") if path.exists() else ""

        results = text("out/results.json")
        if not results:
            console = text("console")[-2000:]
            if "Starting" not in console and "Welcome" not in console and not text("out/stdout"):
                raise unittest.SkipTest(f"systemd-nspawn does not boot here: {console}")
            raise AssertionError(f"no results\n{console}\n{text('out/stderr')}")
        cls.results = json.loads(results)
        print(json.dumps(cls.results.get("measured", {}), indent=1))

    def found(self, name):
        finding = self.results["findings"].get(name)
        self.assertIsNotNone(finding, f"not reached: {self.results.get('error', '')}")
        self.assertTrue(finding["ok"], finding["detail"])


# One test a finding, so that a report names what broke.
for _name in (
    "installs_and_starts", "is_told_its_deployment_after_it_ran", "ready_means_bound_and_recovered",
    "not_ready_without_its_socket",
    "socket_is_for_the_group", "good_reload", "bad_reload", "killed_comes_back",
    "stuck_loop_is_killed", "bad_configuration_does_not_loop", "stops_cleanly",
    "instances_stand_alone", "secret_key_from_a_credential", "sandboxed", "upgrades",
    "client_package", "removes_and_purges",
):
    setattr(Booted, f"test_{_name}", lambda self, name=_name: self.found(name))


if __name__ == "__main__":
    unittest.main()
