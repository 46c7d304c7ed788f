"""Runs as root inside a booted container: installs eplbd as Debian does and tries its service.
Findings go to /check/out/results.json; test_systemd.py judges them.

SPDX-License-Identifier: Apache-2.0
"""

import grp
import json
import os
import pathlib
import pwd
import re
import signal
import socket
import stat
import subprocess
import time
import traceback
import urllib.request

CHECK = pathlib.Path("/check")
CONFIG = pathlib.Path("/etc/eplbd/eplbd.yaml")
HTTP = "http://127.0.0.1:9877"
results = {"findings": {}, "measured": {}}


def run(*command):
    env = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
    return subprocess.run(command, text=True, capture_output=True, timeout=60, env=env)


def must(*command):
    done = run(*command)
    assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def shown(name, unit="eplbd"):
    return must("systemctl", "show", "-P", name, unit).strip()


def main_pid(unit="eplbd"):
    return int(shown("MainPID", unit))


def get(path, base=HTTP):
    with urllib.request.urlopen(base + path, timeout=2) as answer:
        return answer.read().decode()


def placement_id():
    placement = json.loads(get("/api/v1/placement"))
    return placement["term"], placement["version"]


def eventually(what, seconds, condition):
    """Seconds until `condition` held. A poll: nobody tells a client that a daemon is back."""
    began = time.monotonic()
    while True:
        try:
            if condition():
                return time.monotonic() - began
        except (OSError, AssertionError, ValueError):
            pass
        assert time.monotonic() - began < seconds, f"not within {seconds} s: {what}"
        time.sleep(0.02)


def edit(old, new):
    text = CONFIG.read_text()
    assert old in text, old
    CONFIG.write_text(text.replace(old, new, 1))


def drop_in(text):
    folder = pathlib.Path("/etc/systemd/system/eplbd.service.d")
    folder.mkdir(exist_ok=True)
    (folder / "test.conf").write_text("[Service]\n" + text)
    must("systemctl", "daemon-reload")


def installs_and_starts():
    must("dpkg", "-i", "/check/eplbd.deb")
    assert must("systemctl", "is-active", "eplbd").strip() == "active"
    assert must("systemctl", "is-enabled", "eplbd").strip() == "enabled"
    owner = pwd.getpwnam("eplbd")
    assert main_pid() > 1
    assert os.stat(f"/proc/{main_pid()}").st_uid == owner.pw_uid
    assert get("/healthz") is not None


def is_told_its_deployment_after_it_ran():
    """The service runs once it is installed; then somebody says whose it is, and of what shape."""
    edit("deployment: deepseek-v3-decode", "deployment: mine")
    edit("gpus: 32", "gpus: 8")
    must("systemctl", "restart", "eplbd")
    assert json.loads(get("/api/v1/status"))["deployment"] == "mine"
    edit("deployment: mine", "deployment: deepseek-v3-decode")
    edit("gpus: 8", "gpus: 32")
    must("systemctl", "restart", "eplbd")


def ready_means_bound_and_recovered():
    must("systemctl", "stop", "eplbd")
    began = time.monotonic()
    must("systemctl", "start", "eplbd")  # returns at READY=1
    results["measured"]["start_seconds"] = round(time.monotonic() - began, 3)
    get("/readyz")
    for port in (15557, 15657):
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    placement_id()
    assert any(pathlib.Path("/var/lib/eplbd").iterdir()), "no state was written"
    assert shown("StatusText"), "no status"


def not_ready_without_its_socket():
    must("systemctl", "stop", "eplbd")
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", 15557))
        other.listen()
        drop_in("Restart=no\n")
        assert run("systemctl", "start", "eplbd").returncode != 0, "ready without its socket"
    drop_in("")
    must("systemctl", "reset-failed", "eplbd")
    must("systemctl", "start", "eplbd")


def socket_is_for_the_group():
    control = os.stat("/run/eplbd/control.sock")
    assert stat.S_IMODE(control.st_mode) == 0o660, oct(control.st_mode)
    assert grp.getgrgid(control.st_gid).gr_name == "eplbd"
    assert stat.S_IMODE(os.stat("/run/eplbd").st_mode) == 0o750
    assert stat.S_IMODE(os.stat("/var/lib/eplbd").st_mode) == 0o750
    must("useradd", "--no-create-home", "outsider")
    must("useradd", "--no-create-home", "--groups", "eplbd", "member")
    asked = ("eplbctl", "placement", "--json")
    must("runuser", "-u", "member", "--", *asked)
    assert run("runuser", "-u", "outsider", "--", *asked).returncode == 1


def good_reload():
    edit("mode: observe", "mode: shadow")
    must("systemctl", "reload", "eplbd")
    # The reload was answered after it took effect: no waiting here.
    assert 'eplbd_mode{deployment="deepseek-v3-decode",mode="shadow"} 1' in get("/metrics")
    edit("mode: shadow", "mode: observe")
    must("systemctl", "reload", "eplbd")


def bad_reload():
    pid = main_pid()
    for old, new in (("mode: observe", "mode: idle"), ("slots: 288 ", "slots: 320 ")):
        edit(old, new)
        assert run("systemctl", "reload", "eplbd").returncode != 0, f"took {new}"
        edit(new, old)
        assert re.search(r"^eplbd_config_last_reload_successful\{.*\} 0", get("/metrics"), re.M)
    assert main_pid() == pid
    assert must("systemctl", "is-active", "eplbd").strip() == "active"
    must("systemctl", "reload", "eplbd")
    assert re.search(r"^eplbd_config_last_reload_successful\{.*\} 1", get("/metrics"), re.M)


def publish_a_placement():
    """By a simulated fleet; returns its (term, version)."""
    must("eplbctl", "mode", "active")
    fleet = subprocess.Popen(
        ["eplbctl", "load", "--config", str(CONFIG), "--interval", "0.2", "--apply-seconds", "0.1",
         "--seconds", "30", "--force"],  # the daemon may hold what an earlier fleet left
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )
    try:
        eventually("a placement", 25, lambda: placement_id()[1] >= 1)
    finally:
        fleet.terminate()
        fleet.wait()
        must("eplbctl", "mode", "config")
    return placement_id()


def killed_comes_back():
    before = publish_a_placement()
    restarts = int(shown("NRestarts"))
    began = time.monotonic()
    os.kill(main_pid(), signal.SIGKILL)
    eventually("a restart", 10, lambda: int(shown("NRestarts")) > restarts)
    eventually("ready", 10, lambda: get("/readyz") is not None)
    results["measured"]["back_after_kill_seconds"] = round(time.monotonic() - began, 3)
    assert placement_id() == before, (placement_id(), before)
    assert results["measured"]["back_after_kill_seconds"] < 2


def stuck_loop_is_killed():
    before = placement_id()
    drop_in("WatchdogSec=2\n")
    must("systemctl", "restart", "eplbd")
    time.sleep(4)  # twice the watchdog's time: a loop that runs keeps it fed
    restarts = int(shown("NRestarts"))
    pid = main_pid()
    os.kill(pid, signal.SIGSTOP)
    seconds = eventually("the watchdog", 10, lambda: int(shown("NRestarts")) > restarts)
    eventually("ready", 10, lambda: get("/readyz") is not None)
    results["measured"]["watchdog_of_2s_seconds"] = round(seconds, 3)
    assert main_pid() != pid
    assert restarts == 0, "the watchdog ended a daemon that was not stuck"
    assert placement_id() == before
    assert "watchdog" in must("journalctl", "-u", "eplbd", "-b").lower()
    drop_in("")


def bad_configuration_does_not_loop():
    edit("mode: observe", "mode: idle")
    assert run("systemctl", "restart", "eplbd").returncode != 0
    time.sleep(1)  # several times RestartSec: room for a loop to show
    assert shown("ExecMainStatus") == "78"
    assert shown("NRestarts") == "0"
    assert "mode: must be" in must("journalctl", "-u", "eplbd", "-b", "-p", "err")
    edit("mode: idle", "mode: observe")
    must("systemctl", "reset-failed", "eplbd")
    must("systemctl", "start", "eplbd")


def stops_cleanly():
    began = time.monotonic()
    must("systemctl", "stop", "eplbd")
    results["measured"]["stop_seconds"] = round(time.monotonic() - began, 3)
    assert time.monotonic() - began < 5
    assert shown("Result") == "success", shown("Result")
    assert shown("ExecMainStatus") == "0"
    must("systemctl", "start", "eplbd")


def instances_stand_alone():
    text = CONFIG.read_text()
    for old, new in (("deepseek-v3-decode", "prefill"), (":15557", ":16557"), (":15657", ":16657"),
                     (":9877", ":9977")):
        text = text.replace(old, new)
    CONFIG.with_name("prefill.yaml").write_text(text)
    must("systemctl", "start", "eplbd@prefill")
    get("/readyz", "http://127.0.0.1:9977")
    must("eplbctl", "placement", "--deployment", "prefill")
    must("systemctl", "reload", "eplbd@prefill")
    must("systemctl", "restart", "eplbd")
    must("systemctl", "stop", "eplbd")
    must("eplbctl", "placement", "--deployment", "prefill")
    must("systemctl", "start", "eplbd")
    must("systemctl", "stop", "eplbd@prefill")
    must("eplbctl", "placement")
    CONFIG.with_name("prefill.yaml").unlink()


def secret_key_from_a_credential():
    import zmq  # only here: a key pair is all that is wanted of it

    public, private = zmq.curve_keypair()
    os.makedirs("/etc/eplbd/keys", exist_ok=True)
    pathlib.Path("/etc/eplbd/keys/dp0.pub").write_text(f"{public.decode()} source dp0\n")
    secret = pathlib.Path("/etc/eplbd/curve.secret")
    secret.touch(mode=0o600)
    secret.write_text(private.decode() + "\n")
    drop_in(f"LoadCredential=curve.secret:{secret}\n")
    before = CONFIG.read_text()
    edit('curve_secret_key: ""', "curve_secret_key: /run/credentials/eplbd.service/curve.secret")
    edit('authorized_keys: ""', "authorized_keys: /etc/eplbd/keys")
    try:
        must("systemctl", "restart", "eplbd")
        get("/readyz")
    finally:
        CONFIG.write_text(before)
        drop_in("")
        run("systemctl", "restart", "eplbd")


def sandboxed():
    status = pathlib.Path(f"/proc/{main_pid()}/status").read_text()
    assert re.search(r"^CapEff:\s*0+$", status, re.M), "has capabilities"
    assert re.search(r"^NoNewPrivs:\s*1$", status, re.M)
    assert re.search(r"^Seccomp:\s*2$", status, re.M)
    memory = int(re.search(r"^VmRSS:\s*(\d+)", status, re.M)[1]) / 1024
    results["measured"]["memory_mib"] = round(memory, 1)
    metrics = get("/metrics")
    for name in ("process_cpu_seconds_total", "process_resident_memory_bytes",
                 "process_open_fds", "process_max_fds", "process_start_time_seconds"):
        value = re.search(rf"^{name}(?:\{{.*\}})? (\S+)$", metrics, re.M)
        assert value and float(value[1]) > 0, f"{name} is not known in the sandbox"
    # The journal has the daemon's lines, and no complaint of what the sandbox forbids.
    journal = must("journalctl", "-u", "eplbd", "-b")
    assert "Permission denied" not in journal and "not permitted" not in journal, journal[-2000:]


def upgrades():
    before = placement_id()
    pid = main_pid()
    edit("cooldown: 5s", "cooldown: 6s")  # an operator's change
    must("dpkg", "-i", "/check/eplbd-99.deb")
    assert must("systemctl", "is-active", "eplbd").strip() == "active"
    assert main_pid() != pid, "still runs what was replaced"
    assert placement_id() == before
    assert "cooldown: 6s" in CONFIG.read_text(), "the configuration was overwritten"


def client_package():
    must("dpkg", "-i", "/check/libeplb1.deb", "/check/python3-eplbd.deb")
    must("python3", "-c", "import eplbd_client, importlib.metadata as m; m.version('eplbd')")
    must("python3", "-c", "import eplbd; assert eplbd.initial_placement(1, 2, 3).tolist() == [[0, 1, 0]];"
         "eplbd.rebalance_experts([[2, 1]], 2, 1, 1, 2)")
    must("dpkg", "-r", "python3-eplbd", "libeplb1")
    assert run("python3", "-c", "import eplbd_client").returncode != 0


def removes_and_purges():
    must("dpkg", "-r", "eplbd")
    assert run("systemctl", "is-active", "eplbd").stdout.strip() != "active"
    assert CONFIG.exists() and pathlib.Path("/var/lib/eplbd").exists(), "removal took data"
    must("dpkg", "-P", "eplbd")
    assert not CONFIG.exists()
    assert not pathlib.Path("/var/lib/eplbd").exists()
    assert not list(pathlib.Path("/etc/systemd/system").glob("*.wants/eplbd.service"))


STEPS = (
    installs_and_starts, is_told_its_deployment_after_it_ran, ready_means_bound_and_recovered,
    not_ready_without_its_socket,
    socket_is_for_the_group, good_reload, bad_reload, killed_comes_back, stuck_loop_is_killed,
    bad_configuration_does_not_loop, stops_cleanly, instances_stand_alone,
    secret_key_from_a_credential, sandboxed, upgrades, client_package, removes_and_purges,
)


def main():
    for step in STEPS:
        try:
            step()
            finding = {"ok": True, "detail": ""}
        except Exception:  # what went wrong is the finding; the next step is tried all the same
            journal = run("journalctl", "-u", "eplbd", "-b", "-n", "25", "--no-pager").stdout
            finding = {"ok": False, "detail": traceback.format_exc() + journal}
            run("systemctl", "reset-failed", "eplbd")
            CONFIG.parent.mkdir(exist_ok=True)
            if step is not removes_and_purges:
                CONFIG.write_text((CHECK / "shipped.yaml").read_text())
                pathlib.Path("/etc/systemd/system/eplbd.service.d/test.conf").unlink(True)
                run("systemctl", "daemon-reload")
                run("systemctl", "restart", "eplbd")
        results["findings"][step.__name__] = finding
        (CHECK / "out" / "results.json").write_text(json.dumps(results))


main()
