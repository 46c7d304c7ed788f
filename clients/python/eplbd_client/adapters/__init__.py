# SPDX-License-Identifier: Apache-2.0
"""What the adapters of engines have in common: settings from the environment, and when to act.

An adapter does nothing unless EPLBD_DEPLOYMENT is set, so the package may be installed anywhere.

    EPLBD_DEPLOYMENT     the deployment's name
    EPLBD_COUNTS         where counts and state go; default tcp://127.0.0.1:15557
    EPLBD_PLACEMENTS     where placements come from; default tcp://127.0.0.1:15657; several: commas
    EPLBD_ENGINE         the engine instance's name, where several serve one deployment
    EPLBD_OBSERVE        1: count only, apply nothing
    EPLBD_UNCHECKED      1: apply on engine versions that were not checked, too
    EPLBD_KILL_SWITCH    1: do nothing at all, whatever else is set
    EPLBD_SECRET_KEY, EPLBD_SERVER_KEY    files with CURVE keys
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional

from ..curve import CurveKeys

logger = logging.getLogger("eplbd_client")

_TRUE = ("1", "true", "yes", "on")


@dataclass(frozen=True)
class Settings:
    deployment: str
    counts: tuple[str, ...]
    placements: tuple[str, ...]
    engine: str = ""
    observe: bool = False
    unchecked: bool = False
    curve: Optional[CurveKeys] = None

    @staticmethod
    def from_environment(environment: Mapping[str, str] = os.environ) -> Optional[Settings]:
        """None: not asked to do anything."""

        def true(name: str) -> bool:
            return environment.get(name, "").lower() in _TRUE

        deployment = environment.get("EPLBD_DEPLOYMENT", "")
        if not deployment or true("EPLBD_KILL_SWITCH"):
            return None
        curve = None
        if environment.get("EPLBD_SECRET_KEY"):
            curve = CurveKeys.from_files(
                environment["EPLBD_SECRET_KEY"], environment["EPLBD_SERVER_KEY"]
            )

        def addresses(name: str, default: str) -> tuple[str, ...]:
            return tuple(filter(None, environment.get(name, default).split(",")))

        return Settings(
            deployment=deployment,
            counts=addresses("EPLBD_COUNTS", "tcp://127.0.0.1:15557"),
            placements=addresses("EPLBD_PLACEMENTS", "tcp://127.0.0.1:15657"),
            engine=environment.get("EPLBD_ENGINE", ""),
            observe=true("EPLBD_OBSERVE"),
            unchecked=true("EPLBD_UNCHECKED"),
            curve=curve,
        )


def is_checked(version: str, known: Sequence[str], engine: str) -> bool:
    """Whether an adapter may act on this version; says so where it may only look."""
    found = any(version == prefix or version.startswith(f"{prefix}.") for prefix in known)
    if not found:
        logger.warning(
            "eplbd: %s %s was not checked (%s were): observing only", engine, version, ", ".join(known)
        )
    return found


def find_link(owner: Any, make: Callable[[], Any]) -> Any:
    """The adapter's link, kept on the engine's own object; None: it could not be made."""
    if "_eplbd_link" not in owner.__dict__:
        owner._eplbd_link = None
        try:
            owner._eplbd_link = make()
        except Exception as problem:
            logger.warning("eplbd: the adapter stays out: %s", problem)
    return owner._eplbd_link
