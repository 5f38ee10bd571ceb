"""How good a classifier and its heatmaps are: ranking, localisation, pixel flipping, and their uncertainty.

For core and everything above it. Measures take arrays and callables, never an Explanation. All measures are
deterministic: random numbers come from a seed.
"""

from .evidence import DepthStudy
from .flipping import ORDERS, REPLACEMENTS, Flipper, PixelFlipping, gap, pixel_flipping
from .journal import Journal
from .localisation import (
    Localisation,
    centred_gaussian,
    context,
    localisation,
    pointing_game,
    relevance_mass,
)
from .maps import gini, resolution, share_held
from .quantus import for_quantus
from .ranking import average_precision
from .statistics import Interval, bootstrap
from .study import Case, cases, depth_study
from .summaries import flipping_curves, flipping_table, plot_flipping

__all__ = [
    "ORDERS",
    "REPLACEMENTS",
    "Case",
    "DepthStudy",
    "Flipper",
    "Interval",
    "Journal",
    "Localisation",
    "PixelFlipping",
    "average_precision",
    "bootstrap",
    "cases",
    "centred_gaussian",
    "context",
    "depth_study",
    "flipping_curves",
    "flipping_table",
    "for_quantus",
    "gap",
    "gini",
    "localisation",
    "pixel_flipping",
    "plot_flipping",
    "pointing_game",
    "relevance_mass",
    "resolution",
    "share_held",
]
