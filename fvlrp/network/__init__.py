"""The network stack: layers, their rules, the walk through a graph, the ONNX importer, retraining.

May import core and the rings below; never the Fisher-vector stack. `fvlrp` names its public classes.
"""
