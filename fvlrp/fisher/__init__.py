"""The Fisher-vector stack: dense SIFT, PCA, Gaussian mixture, Fisher vector, linear SVM, and relevance back to pixels.

May import core and the rings below; never the network stack. `fvlrp` names its public classes.

It has the same three parts as the network stack: `layers` (each mapping in its forward, exact and flat form), `walk`
(relevance through the stack) and `trace` (one image's forward pass and its explanations). The layers are built on:

- `geometry`, where everything lies; `sift`, the descriptors; `gmm`, the mixture.
- `encoder`, Eqs. 3-4 summed over the pyramid; `relevance`, Eqs. 5-6 and Eq. 1; `supports`, which pixels a bin, a
  descriptor and a cell cover; `settle`, sums whose sign is uncertain in float32.
- `rules`, the choices of an explanation and their formulas.
- `classifier` is the estimator, `training` its stages, `parts` its file, with coef_ packed by `weights`; `importing`
  reads models that were made elsewhere.
"""
