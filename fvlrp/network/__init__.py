"""The network stack: layers, their rules, the walk through a graph, importers, retraining.

It has the same three parts as the Fisher-vector stack: `layers`, `walk` and `trace`. May import core and the rings
below, never the Fisher-vector stack. The public classes are names of `fvlrp`.

- `layers`, one module per kind: `conv` (and its padding), `dense`, `pool`, `norm`, `attention`, `join`, ...
- `contributions` in `layers`, sums of either sign and shares of linear layers; `windows`, the kernels they call.
- `rules`, the choices of an explanation; `graph`, the nodes; `tokens`, blocks and tokens of transformers.
- `onnx` and `caffe`, the importers; `preprocess` and `description`, how images are prepared.
- `network` is the estimator, `retraining` learns its last layer, `storage` is its file.
"""
