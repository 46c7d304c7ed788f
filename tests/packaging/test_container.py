"""The Kubernetes manifests and the Containerfile against the daemon and each other.

SPDX-License-Identifier: Apache-2.0
"""

import re
import shutil
import tempfile
import unittest
from pathlib import Path

import yaml

from paths import EPLBCTL, EPLBD, SOURCE, run

FOLDER = SOURCE / "packaging" / "kubernetes"
CHART = FOLDER / "chart"
INSTANCE = "app.kubernetes.io/instance"


class Manifests(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        documents = yaml.safe_load_all((FOLDER / "base" / "eplbd.k8s.yaml").read_text())
        cls.by_kind = {document["kind"]: document for document in documents}
        cls.pod = cls.by_kind["Deployment"]["spec"]["template"]["spec"]
        cls.container = cls.pod["containers"][0]
        cls.ports = {port["name"]: port["containerPort"] for port in cls.container["ports"]}

    def test_configurations_are_valid_and_listen_on_the_ports(self):
        one = yaml.safe_load((FOLDER / "decode" / "eplbd.yaml").read_text())
        two = yaml.safe_load((CHART / "values.yaml").read_text())["config"]
        self.assertEqual({**one, "ha": two["ha"]}, two)
        for config in (one, two):
            with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
                yaml.safe_dump(config, file)
                file.flush()
                # Its keys are there in the pod alone.
                checked = run(EPLBD, "--config", file.name, "--print-config")
            self.assertEqual((checked.returncode, checked.stderr), (0, ""))
            bound = [config["endpoints"][name]["bind"][0] for name in ("counts", "placements")]
            bound.append(config["http"]["listen"])
            listened = {int(address.rsplit(":", 1)[1]) for address in bound}
            self.assertEqual(listened, set(self.ports.values()))

    def test_never_two_publishers(self):
        spec = self.by_kind["Deployment"]["spec"]
        self.assertEqual((spec["replicas"], spec["strategy"]["type"]), (1, "Recreate"))

    def test_probes(self):
        probes = {name: self.container[name]["httpGet"]["path"]
                  for name in ("livenessProbe", "readinessProbe")}
        self.assertEqual(probes, {"livenessProbe": "/healthz", "readinessProbe": "/readyz"})

    def test_what_is_named_exists(self):
        volumes = {volume["name"] for volume in self.pod["volumes"]}
        self.assertEqual({mount["name"] for mount in self.container["volumeMounts"]}, volumes)
        labels = self.by_kind["Deployment"]["spec"]["template"]["metadata"]["labels"]
        self.assertEqual(self.by_kind["Service"]["spec"]["selector"], labels)
        policy = self.by_kind["NetworkPolicy"]["spec"]
        self.assertEqual(policy["podSelector"]["matchLabels"], labels)
        for rule in policy["ingress"]:
            for port in rule["ports"]:
                self.assertIn(port["port"], self.ports)

    def test_the_image_runs_as_the_pod_does(self):
        text = (SOURCE / "packaging" / "Containerfile").read_text()
        user = re.search(r"^USER (\d+):(\d+)$", text, re.M)
        context = self.pod["securityContext"]
        self.assertEqual([int(user[1]), int(user[2])],
                         [context["runAsUser"], context["runAsGroup"]])
        exposed = re.search(r"^EXPOSE (.*)$", text, re.M)[1].split()
        self.assertEqual({int(port) for port in exposed}, set(self.ports.values()))


def values_of(key, node):
    """What stands under `key`, anywhere in the node."""
    if isinstance(node, dict):
        for name, value in node.items():
            if name == key:
                yield value
            yield from values_of(key, value)
    elif isinstance(node, list):
        for value in node:
            yield from values_of(key, value)


class Keys(unittest.TestCase):
    """The commands of the page, from keys to what the pod mounts."""

    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.tree = Path(folder.name) / "packaging" / "kubernetes"
        shutil.copytree(FOLDER, cls.tree)
        page = (FOLDER / "README.md").read_text()
        commands = re.search(r"```sh\n(.*?)kubectl", page, re.S)[1].replace("eplbctl", EPLBCTL)
        made = run("sh", "-euc", commands, cwd=folder.name)
        assert made.returncode == 0, made.stderr

    def test_every_rank_has_a_key_that_the_daemon_takes(self):
        config = yaml.safe_load((self.tree / "decode" / "eplbd.yaml").read_text())
        workers = self.tree / "workers"
        workers.mkdir()
        shutil.copy(self.tree / "decode" / "workers.pub", workers)
        config["security"] = {"curve_secret_key": str(self.tree / "decode" / "curve.key"),
                              "authorized_keys": str(workers)}
        mounted = self.tree / "mounted.yaml"
        mounted.write_text(yaml.safe_dump(config))
        checked = run(EPLBD, "--config", str(mounted), "--check-config")
        self.assertEqual((checked.returncode, checked.stderr), (0, ""))
        lines = (workers / "workers.pub").read_text().splitlines()
        said = [line.split()[2] for line in lines if line and not line.startswith("#")]
        ranks = config["topology"]["gpus"]
        self.assertEqual(sorted(said), sorted(f"dp{rank}" for rank in range(ranks)))
        for rank in range(ranks):
            self.assertTrue((self.tree / "keys" / f"dp{rank}.key").exists())

    def rendered(self, name):
        done = run("kubectl", "kustomize", str(self.tree / name))
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return {document["kind"]: document for document in yaml.safe_load_all(done.stdout)
                if document["kind"] not in ("ConfigMap", "Secret")}, done.stdout

    @unittest.skipUnless(run("sh", "-c", "kubectl kustomize --help").returncode == 0,
                         "no kubectl that renders")
    def test_two_live_in_one_namespace(self):
        shutil.copytree(self.tree / "decode", self.tree / "prefill")
        other = self.tree / "prefill" / "kustomization.yaml"
        text = other.read_text()
        other.write_text(text.replace("-decode", "-prefill").replace("instance: decode", "instance: prefill"))
        names = []
        for name in ("decode", "prefill"):
            kinds, text = self.rendered(name)
            documents = list(yaml.safe_load_all(text))
            named = [(document["kind"], document["metadata"]["name"]) for document in documents]
            for _, own in named:
                self.assertIn(f"-{name}", own)
            names += named
            # What the pod mounts is what was made beside it.
            volumes = kinds["Deployment"]["spec"]["template"]["spec"]["volumes"]
            for kind, key in (("Secret", "secretName"), ("PersistentVolumeClaim", "claimName")):
                for wanted in values_of(key, volumes):
                    self.assertIn((kind, wanted), named)
            for config in values_of("configMap", volumes):
                self.assertIn(("ConfigMap", config["name"]), named)
            labels = kinds["Deployment"]["spec"]["template"]["metadata"]["labels"]
            self.assertEqual(labels[INSTANCE], name)
            self.assertEqual(kinds["Deployment"]["spec"]["selector"]["matchLabels"], labels)
            self.assertEqual(kinds["Service"]["spec"]["selector"], labels)
            policy = kinds["NetworkPolicy"]["spec"]
            self.assertEqual(policy["podSelector"]["matchLabels"], labels)
            self.assertNotIn(INSTANCE, str(policy["ingress"]))
        self.assertEqual(len(set(names)), len(names))


def manifests(folder):
    """kind -> document."""
    text = (FOLDER / folder / "eplbd.k8s.yaml").read_text()
    return {document["kind"]: document for document in yaml.safe_load_all(text)}


class TwoDaemons(unittest.TestCase):
    def test_pods_are_those_of_one_daemon_but_for_the_volume(self):
        one = manifests("base")["Deployment"]["spec"]["template"]
        two = manifests("ha")["StatefulSet"]["spec"]["template"]
        del two["spec"]["affinity"]
        (container,) = one["spec"]["containers"]
        container["volumeMounts"] = [m for m in container["volumeMounts"] if m["name"] != "state"]
        one["spec"]["volumes"] = [v for v in one["spec"]["volumes"] if v["name"] != "state"]
        self.assertEqual(one, two)

    def test_one_may_be_away_and_the_service_names_each(self):
        kinds = manifests("ha")
        labels = kinds["StatefulSet"]["spec"]["template"]["metadata"]["labels"]
        self.assertEqual(kinds["StatefulSet"]["spec"]["replicas"], 2)
        self.assertEqual(kinds["StatefulSet"]["spec"]["serviceName"], kinds["Service"]["metadata"]["name"])
        self.assertEqual(kinds["Service"]["spec"]["clusterIP"], "None")
        self.assertEqual(kinds["PodDisruptionBudget"]["spec"]["maxUnavailable"], 1)
        self.assertEqual(kinds["Service"]["spec"]["selector"], labels)
        for kind in ("PodDisruptionBudget", "StatefulSet"):
            self.assertEqual(kinds[kind]["spec"]["selector"]["matchLabels"], labels)


def without(key, node):
    """The node without what stands under `key`, anywhere."""
    if isinstance(node, dict):
        return {name: without(key, value) for name, value in node.items() if name != key}
    return [without(key, value) for value in node] if isinstance(node, list) else node


class Chart(unittest.TestCase):
    def test_its_version_is_that_of_the_daemon(self):
        chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
        version = run(EPLBD, "--version").stdout.split()[1]
        self.assertEqual((chart["version"], chart["appVersion"]), (version, version))

    def test_every_value_is_used_and_documented(self):
        templates = "".join(path.read_text() for path in (CHART / "templates").iterdir())
        used = set(re.findall(r"\.Values\.([\w.]+)", templates))
        values = yaml.safe_load((CHART / "values.yaml").read_text())
        there = {f"{name}.{key}" if name not in ("config", "resources") else name
                 for name, value in values.items() for key in value or [""]}
        self.assertEqual({name.rstrip(".") for name in there},
                         {re.sub(r"^config\..*", "config", name) for name in used})

    def rendered(self, *flags):
        helm = shutil.which("helm")
        if not helm:
            self.skipTest("no helm, which Debian does not have")
        for command in (["lint", "--strict"], ["template", "decode"]):
            done = run(helm, *command, *flags, str(CHART))
            self.assertEqual((done.returncode, done.stderr), (0, ""), done.stdout)
        return {document["kind"]: document for document in yaml.safe_load_all(done.stdout)}

    def plain(self, documents):
        """As the manifests are: of no release, and with a configuration from elsewhere."""
        plain = yaml.safe_load(yaml.safe_dump(documents).replace("eplbd-decode", "eplbd"))
        for document in plain.values():
            labels = document["metadata"]["labels"]
            document["metadata"]["labels"] = {name: labels[name] for name in ("app.kubernetes.io/name",)}
            template = document["spec"].get("template", {}) if "spec" in document else {}
            template.get("metadata", {}).pop("annotations", None)
        return without("imagePullPolicy", without(INSTANCE, plain))

    def test_it_makes_what_the_manifests_make(self):
        for folder, flags in (("ha", ()), ("base", ("--set", "config.ha=null"))):
            with self.subTest(folder):
                made = self.rendered(*flags)
                config = yaml.safe_load(made.pop("ConfigMap")["data"]["eplbd.yaml"])
                values = yaml.safe_load((CHART / "values.yaml").read_text())["config"]
                self.assertEqual(config, values if folder == "ha" else without("ha", values))
                self.assertEqual(self.plain(made), manifests(folder))

    def test_what_values_add(self):
        made = self.rendered("--set", "secrets.etcd=etcd-client,podMonitor.enabled=true",
                             "--set", "nodeSelector.a=b,networkPolicy.enabled=false")
        self.assertNotIn("NetworkPolicy", made)
        monitor = yaml.safe_load((FOLDER / "monitoring" / "podmonitor.yaml").read_text())
        self.assertEqual(self.plain(made)["PodMonitor"], monitor)
        pod = made["StatefulSet"]["spec"]["template"]["spec"]
        self.assertEqual(pod["nodeSelector"], {"a": "b"})
        mounts = {mount["name"]: mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
        self.assertEqual(mounts["etcd"], "/etc/eplbd/etcd")
        self.assertEqual(set(mounts), {volume["name"] for volume in pod["volumes"]})
        alone = self.rendered("--set", "config.ha=null,persistence.storageClass=fast")
        self.assertEqual(alone["PersistentVolumeClaim"]["spec"]["storageClassName"], "fast")


class Monitoring(unittest.TestCase):
    def test_the_operator_gets_every_rule(self):
        done = run(str(FOLDER / "monitoring" / "prometheusrule"))
        rule = yaml.safe_load(done.stdout)
        rules = yaml.safe_load((SOURCE / "metrics" / "eplbd.rules.yml").read_text())
        self.assertEqual((rule["kind"], rule["spec"]), ("PrometheusRule", rules))

    def test_pods_are_scraped_as_the_job_of_the_rules(self):
        monitor = yaml.safe_load((FOLDER / "monitoring" / "podmonitor.yaml").read_text())["spec"]
        manifests = yaml.safe_load_all((FOLDER / "base" / "eplbd.k8s.yaml").read_text())
        (pod,) = (document["spec"]["template"] for document in manifests
                  if document["kind"] == "Deployment")
        labels = pod["metadata"]["labels"]
        self.assertEqual(labels[monitor["jobLabel"]], "eplbd")
        self.assertEqual(monitor["selector"]["matchLabels"], labels)
        ports = [port["name"] for port in pod["spec"]["containers"][0]["ports"]]
        for endpoint in monitor["podMetricsEndpoints"]:
            self.assertIn(endpoint["port"], ports)


if __name__ == "__main__":
    unittest.main()
