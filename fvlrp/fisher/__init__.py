"""The Fisher-vector stack: dense SIFT, PCA, Gaussian mixture, Fisher vector, linear SVM, and the way back to pixels.

May import core and the rings below; never the network stack. `fvlrp` names its public classes.

Three rooms, as in the network stack: `layers` (each mapping with its forward, exact and flat form), `walk` (the stack
and the way down it) and `trace` (one image's forward pass and its explanations). What the layers stand on:

- `geometry` knows where everything lies, `sift` extracts descriptors, `gmm` learns the mixture.
- `encoder` sums Eqs. 3-4 over the pyramid; `relevance` goes back by Eqs. 5-6 and Eq. 1; `supports` decides which
  pixels a bin, a descriptor and a cell have; `settle` mends sums whose sign float32 cannot tell.
- `rules` holds the choices of an explanation and their formulas.
- `classifier` is the estimator, `training` its stages, `weights` its file.
"""
