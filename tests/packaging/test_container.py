"""The Kubernetes manifests and the Containerfile against the daemon and each other.

SPDX-License-Identifier: Apache-2.0
"""

import re
import unittest

import yaml

from paths import EPLBD, SOURCE, run

FOLDER = SOURCE / "packaging" / "kubernetes"


class Manifests(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        documents = yaml.safe_load_all((FOLDER / "eplbd.k8s.yaml").read_text())
        cls.by_kind = {document["kind"]: document for document in documents}
        cls.pod = cls.by_kind["Deployment"]["spec"]["template"]["spec"]
        cls.container = cls.pod["containers"][0]
        cls.ports = {port["name"]: port["containerPort"] for port in cls.container["ports"]}

    def test_the_configuration_is_valid_and_listens_on_the_ports(self):
        path = FOLDER / "eplbd.yaml"
        # Its keys are there in the pod alone.
        checked = run(EPLBD, "--config", str(path), "--print-config")
        self.assertEqual((checked.returncode, checked.stderr), (0, ""))
        config = yaml.safe_load(path.read_text())
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


if __name__ == "__main__":
    unittest.main()
