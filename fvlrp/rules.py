"""The rules of both stacks: every choice of an explanation as small frozen values, to print, compare, save and send."""

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
