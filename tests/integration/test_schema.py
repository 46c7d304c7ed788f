# SPDX-License-Identifier: Apache-2.0
"""The configuration's JSON Schema against the program that reads configurations."""

import copy
import json
import pathlib
import subprocess
import tempfile
import unittest

import yaml
from jsonschema import Draft202012Validator

from harness import program

ROOT = pathlib.Path(__file__).resolve().parents[2]
SHIPPED = (ROOT / "config/eplbd.yaml").read_text()


def eplbd(*flags):
    return subprocess.run([program("eplbd"), *flags], capture_output=True, text=True, timeout=20)


def keys_of(schema, path=()):
    """(path, schema) of every key that is no section."""
    for name, inner in schema["properties"].items():
        if "properties" in inner:
            yield from keys_of(inner, (*path, name))
        else:
            yield (*path, name), inner


def value_at(tree, path):
    for name in path:
        tree = tree[name]
    return tree


def wrong_values(schema):
    """Just outside of what the schema of a key allows."""
    if "enum" in schema:
        return ["nonsense", 1]
    kind = schema["type"]
    if kind == "boolean":
        return ["yes please", 0]
    if kind == "array":
        items = schema["items"]
        return ["text", *([value] for value in wrong_values(items) if value != {})]
    wrong = [{}]
    if "minimum" in schema:
        wrong.append(schema["minimum"] - (1 if kind == "integer" else 0.001))
    if "maximum" in schema:
        wrong.append(schema["maximum"] + 1)
    if "minLength" in schema:
        wrong.append("")
    if "maxLength" in schema:
        wrong.append("x" * (schema["maxLength"] + 1))
    if "pattern" in schema:
        wrong += ["30", "30 s", "-5s", "1w", "."]
    return wrong


class Schema(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        done = eplbd("--print-schema")
        assert done.returncode == 0, done.stderr
        cls.schema = json.loads(done.stdout)
        Draft202012Validator.check_schema(cls.schema)
        cls.validator = Draft202012Validator(cls.schema)
        cls.shipped = yaml.safe_load(SHIPPED)

    def check_config(self, text):
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            file.write(text)
            file.flush()
            return eplbd("--config", file.name, "--check-config")

    def assert_refused_by_both(self, config, what):
        self.assertFalse(self.validator.is_valid(config), what)
        self.assertEqual(78, self.check_config(json.dumps(config)).returncode, what)

    def test_the_shipped_file_has_every_key_and_is_valid(self):
        self.validator.validate(self.shipped)
        for path, key in keys_of(self.schema):
            with self.subTest(path):
                value_at(self.shipped, path)
                self.assertTrue(key["description"])

    def test_defaults_are_what_is_in_force_without_the_key(self):
        least = {"deployment": "d", "topology": {"layers": 2, "logical_experts": 4, "slots": 8,
                                                 "gpus": 2}}
        self.validator.validate(least)
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            file.write(json.dumps(least))
            file.flush()
            in_force = yaml.safe_load(eplbd("--config", file.name, "--print-config").stdout)
        self.validator.validate(in_force)
        for path, key in keys_of(self.schema):
            with self.subTest(path):
                if "default" in key:
                    self.assertEqual(key["default"], value_at(in_force, path))
                    self.assertTrue(Draft202012Validator(key).is_valid(key["default"]))
                else:
                    self.assertEqual(value_at(least, path), value_at(in_force, path))
                    missing = copy.deepcopy(least)
                    del value_at(missing, path[:-1])[path[-1]]
                    self.assert_refused_by_both(missing, path)

    def test_what_the_schema_refuses_eplbd_refuses(self):
        checked = 0
        for path, key in keys_of(self.schema):
            for value in wrong_values(key):
                with self.subTest(path, value=value):
                    config = copy.deepcopy(self.shipped)
                    value_at(config, path[:-1])[path[-1]] = value
                    self.assert_refused_by_both(config, (path, value))
                    checked += 1
        self.assertGreater(checked, 100)

    def test_sections(self):
        for path in {path[:-1] for path, _ in keys_of(self.schema)}:
            with self.subTest(path):
                config = copy.deepcopy(self.shipped)
                value_at(config, path)["no_such_key"] = 1
                self.assert_refused_by_both(config, path)
                if len(path) == 1 and path != ("topology",):
                    config[path[0]] = None  # a section that is only a word and a colon
                    self.validator.validate(config)
                    self.assertEqual(0, self.check_config(yaml.safe_dump(config)).returncode)


if __name__ == "__main__":
    unittest.main()
