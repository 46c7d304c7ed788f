# SPDX-License-Identifier: Apache-2.0
"""What a worker imports: report expert loads to eplbd, follow its placements, say what runs."""

from .aio import AsyncPlacementSubscriber
from .curve import CurveKeys
from .placement import Placement, PlacementId, gpu_tokens, logical_counts
from .publisher import CountsPublisher
from .reporter import StateReporter
from .subscriber import PlacementSubscriber

__version__ = "0.1.0"

__all__ = [
    "AsyncPlacementSubscriber",
    "CountsPublisher",
    "CurveKeys",
    "Placement",
    "PlacementId",
    "PlacementSubscriber",
    "StateReporter",
    "gpu_tokens",
    "logical_counts",
]
