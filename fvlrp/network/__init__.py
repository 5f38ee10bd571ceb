"""The network stack: layers, their rules, the walk through a graph, importers, retraining.

It has the same three parts as the Fisher-vector stack: `layers`, `walk` and `trace`. May import core and the rings
below, never the Fisher-vector stack. The public classes are names of `fvlrp`.
"""
