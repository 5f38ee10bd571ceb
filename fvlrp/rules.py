"""The rules of both stacks: every choice of an explanation as small frozen values, to print, compare, save and send."""

from .fisher.rules import FisherRules
from .network.rules import AlphaBeta, Box, ConvRules, Epsilon, Flat, Gamma, WSquare, ZPlus

__all__ = ["AlphaBeta", "Box", "ConvRules", "Epsilon", "FisherRules", "Flat", "Gamma", "WSquare", "ZPlus"]
