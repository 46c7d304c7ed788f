# SPDX-License-Identifier: Apache-2.0
"""Expert-parallelism load balancing: which GPU holds which experts of a mixture-of-experts model.

rebalance_experts() is the function of that name that DeepSeek's EPLB and the engines have, faster
and better balanced. Rebalancer is what the daemon eplbd decides with, in process. Both are libeplb, C++ without a thread or a clock of its own.
"""

from .files import read_placement, read_trace
from .rebalancer import Decision, Rebalancer
from .solve import imbalance, imbalance_bound, initial_placement, rebalance_experts

__version__ = "0.1.0"

__all__ = [
    "Decision",
    "Rebalancer",
    "imbalance",
    "imbalance_bound",
    "initial_placement",
    "read_placement",
    "read_trace",
    "rebalance_experts",
]
