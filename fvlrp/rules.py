"""The public names of all rules of both stacks: frozen values that can be printed, compared, saved and pickled."""

from .core.rules import AlphaBeta, Box, Epsilon, Flat, Gamma, Rule, Shares, WSquare, ZPlus, ratio, total
from .fisher.rules import FisherRules
from .network.rules import ConvRules, NetworkRules

__all__ = [
    "AlphaBeta",
    "Box",
    "ConvRules",
    "Epsilon",
    "FisherRules",
    "Flat",
    "Gamma",
    "NetworkRules",
    "Rule",
    "Shares",
    "WSquare",
    "ZPlus",
    "ratio",
    "total",
]
