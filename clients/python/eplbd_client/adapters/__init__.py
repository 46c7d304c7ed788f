# SPDX-License-Identifier: Apache-2.0
"""What the adapters of engines have in common: settings from the environment, and when to act.

An adapter does nothing unless EPLBD_DEPLOYMENT is set, so the package may be installed anywhere; or
EPLBD_POLICY, which takes no daemon (library.py).

    EPLBD_DEPLOYMENT     the deployment's name
    EPLBD_COUNTS         where counts and state go; default tcp://127.0.0.1:15557
    EPLBD_PLACEMENTS     where placements come from; default tcp://127.0.0.1:15657; several: commas
    EPLBD_ENGINE         the engine instance's name, where several serve one deployment
    EPLBD_FALLBACK       no daemon heard for so long: the engine balances by itself; default 5m
    EPLBD_STUCK          an update that gets no further for so long is given up; default 60s
    EPLBD_OBSERVE        1: count and report only, apply nothing
    EPLBD_UNCHECKED      1: apply on releases that were not checked, too
    EPLBD_KILL_SWITCH    1: do nothing at all, whatever else is set
    EPLBD_SECRET_KEY, EPLBD_SERVER_KEY    files with CURVE keys; {rank} in the first is the rank

A rank's source is called dp0, dp1, ... by its place in the expert-parallel group.
"""

from __future__ import annotations

import importlib
import inspect
import logging
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional

from ..curve import CurveKeys

logger = logging.getLogger("eplbd_client")

_TRUE = ("1", "true", "yes", "on")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True)
class Settings:
    deployment: str
    counts: tuple[str, ...]
    placements: tuple[str, ...]
    engine: str = ""
    fallback_seconds: float = 300.0
    stuck_seconds: float = 60.0
    observe: bool = False
    unchecked: bool = False
    secret_key: str = ""
    server_key: str = ""

    @staticmethod
    def from_environment(environment: Mapping[str, str] = os.environ) -> Optional[Settings]:
        """None: not asked to do anything. Raises ValueError where a value is not understood."""

        def true(name: str) -> bool:
            return environment.get(name, "").lower() in _TRUE

        deployment = environment.get("EPLBD_DEPLOYMENT", "")
        if not deployment or true("EPLBD_KILL_SWITCH"):
            return None
        if bool(environment.get("EPLBD_SECRET_KEY")) != bool(environment.get("EPLBD_SERVER_KEY")):
            raise ValueError("EPLBD_SECRET_KEY and EPLBD_SERVER_KEY: both or neither")

        def addresses(name: str, default: str) -> tuple[str, ...]:
            words = environment.get(name, default).split(",")
            return tuple(filter(None, (word.strip() for word in words)))

        return Settings(
            deployment=deployment,
            counts=addresses("EPLBD_COUNTS", "tcp://127.0.0.1:15557"),
            placements=addresses("EPLBD_PLACEMENTS", "tcp://127.0.0.1:15657"),
            engine=environment.get("EPLBD_ENGINE", ""),
            fallback_seconds=_seconds("EPLBD_FALLBACK", environment.get("EPLBD_FALLBACK", "5m")),
            stuck_seconds=_seconds("EPLBD_STUCK", environment.get("EPLBD_STUCK", "60s")),
            observe=true("EPLBD_OBSERVE"),
            unchecked=true("EPLBD_UNCHECKED"),
            secret_key=environment.get("EPLBD_SECRET_KEY", ""),
            server_key=environment.get("EPLBD_SERVER_KEY", ""),
        )

    def curve(self, rank: int) -> Optional[CurveKeys]:
        if not self.secret_key:
            return None
        return CurveKeys.from_files(self.secret_key.replace("{rank}", str(rank)), self.server_key)


def _seconds(name: str, text: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h)", text.strip())
    seconds = float(found[1]) * _UNITS[found[2]] if found else 0.0
    if not 0.001 <= seconds <= 30 * 86400:
        raise ValueError(f"{name}: a duration with its unit, like 5m, is wanted, not {text!r}")
    return seconds


def start(
    engine: str, patch: Callable[[Settings, str], None], use_library: Callable[[str], None]
) -> None:
    """What an engine's entry point does in every process, by the environment: `patch` for a daemon,
    `use_library` for a policy in process. Never raises: an engine must start without us."""
    from . import library

    log_with(engine)
    try:
        settings = Settings.from_environment()
        if settings is not None:
            patch(settings, importlib.import_module(engine).__version__)
        elif library.policy_named():
            use_library(library.policy_named())
    except Exception as problem:
        logger.warning("eplbd: the adapter stays out: %s", problem)


def log_with(engine: str) -> None:
    """Our lines go where the engine's own do: vLLM shows INFO of no other logger."""
    own = logging.getLogger(engine)
    if own.handlers and not logger.handlers:
        logger.handlers, logger.propagate = list(own.handlers), False
        logger.setLevel(own.level)


def source_name(rank: int) -> str:
    """As the documentation's keys name it."""
    return f"dp{rank}"


def release_of(version: str, known: Iterable[str]) -> Optional[str]:
    """The release of `known` that `version` belongs to: 0.28.1 and 0.28.0+cu130 to 0.28."""
    for release in known:
        if re.match(re.escape(release) + r"(?![0-9])", version):
            return release
    return None


def missing_name(package: str, names: Sequence[str]) -> str:
    """The first of an engine's names that is not there as we know it; "" when all are.

    A name is `module:Class.method(parameter, ...)`, the module relative to `package`; a data
    class's parameters are its fields.
    """
    for name in names:
        module, path, parameters = re.fullmatch(r"([\w.]*):([\w.]+)\(([\w, ]*)\)", name).groups()
        try:
            found = importlib.import_module(f"{package}.{module}")
            for part in path.split("."):
                found = getattr(found, part)
            has = set(inspect.signature(found).parameters)
        except (ImportError, AttributeError, ValueError) as problem:
            return f"{module}.{path}: {problem}"
        lacking = set(filter(None, parameters.split(", "))) - has
        if lacking:
            return f"{module}.{path} has no {', '.join(sorted(lacking))}"
    return ""


def why_not(
    settings: Settings, engine: str, version: str, package: str, releases: Mapping[str, Sequence[str]]
) -> str:
    """Why an adapter may not act on this version of an engine; "" where it may.

    `releases` are the private names that it needs, by release, the newest last.
    """
    if settings.observe:
        return "EPLBD_OBSERVE is set"
    release = release_of(version, releases)
    if release is None and not settings.unchecked:
        return f"{engine} {version} was not checked, {', '.join(releases)} were"
    problem = missing_name(package, releases[release or list(releases)[-1]])
    return f"{engine} {version}: {problem}" if problem else ""


def find_link(owner: Any, make: Callable[[], Any]) -> Any:
    """The adapter's link, kept on the engine's own object; None: it could not be made."""
    if "_eplbd_link" not in owner.__dict__:
        owner._eplbd_link = None
        try:
            owner._eplbd_link = make()
        except Exception as problem:
            logger.warning("eplbd: the adapter stays out: %s", problem)
    return owner._eplbd_link
