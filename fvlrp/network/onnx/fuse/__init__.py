"""Pattern matching: rewrites any exporter's form of a network to a few canonical layers.

For `read_network`. A sequence of passes, each of which changes steps in place: what several steps compute together
becomes one layer in place of the last step, so that its readers do not change. One module for each family of layers.
"""

from ..steps import Step
from .affines import affines
from .attention import attention, gates
from .axes import shuffles, tidy
from .branches import branches
from .formulas import activations, rounded, softmaxes
from .layout import settle
from .norms import groups, normalisations
from .rewrite import Graph

__all__ = ["Graph", "simplified"]

PASSES = (
    tidy,
    activations,
    rounded,
    softmaxes,
    normalisations,
    settle,
    tidy,
    shuffles,
    groups,
    affines,
    branches,
    attention,
    tidy,
)


def simplified(last: Step) -> Graph:
    """The graph of an output in canonical layers."""
    graph = Graph(last)
    for change in PASSES:
        change(graph)
        graph.refresh()
    gates(graph)
    return graph
