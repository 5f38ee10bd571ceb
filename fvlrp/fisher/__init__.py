"""The Fisher-vector stack: dense SIFT, PCA, Gaussian mixture, Fisher vector, linear SVM, and the way back to pixels.

May import core and the rings below; never the network stack. `fvlrp` names its public classes.
"""
