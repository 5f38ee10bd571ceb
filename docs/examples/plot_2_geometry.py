"""
What a bin covers
=================

Frames, bins, boxes and supports of dense SIFT, drawn. Users of other programs have asked for years which pixels a bin
belongs to; here is the answer, from the numbers that the kernels use.
"""

# %%
# Descriptors on a grid
# ---------------------
# Every scale has a bin size s and a grid of descriptors, ``step`` pixels apart. A descriptor has 4 x 4 bins whose
# centres are whole pixels, s apart; its own centre, marked +, is 1.5 s from the first. The descriptors of all scales
# have the same centres, so those of small scales begin further inside the image.

import matplotlib.pyplot as plt
import numpy as np
from skimage import data

from fvlrp import geometry as layout

cat = data.chelsea()[60:160, 120:240]
geometry = layout.Geometry(*cat.shape[:2])  # bin sizes 4, 6, 8, 10, step 3: VLFeat's phow, and the paper's
for scale in geometry.scales:
    print(f"s = {scale.bin_size:2}: {scale.rows} x {scale.cols} descriptors, first bin centre at {scale.first}")

# %%
# Boxes: where relevance goes
# ---------------------------
# At depth "bin" the relevance of a bin is spread evenly over its box of s x s pixels. The 16 boxes tile a square of
# 4s x 4s pixels, over which the relevance of a whole descriptor is spread at depth "descriptor". For even s a box
# cannot be centred on the centre of its bin: it extends s/2 pixels up and left, and s/2 - 1 pixels down and right.

middle = geometry.scales[1].start + geometry.scales[1].count // 2 + geometry.scales[1].cols // 2
layout.show(geometry, middle, cat)

# %%
# Supports: where values come from
# --------------------------------
# The value of a bin was pooled over the dashed square, with weights that decrease linearly to both sides. The supports
# of neighbouring bins overlap, their boxes do not. ``FisherRules(splat="tri")`` spreads relevance over supports
# instead; depth "gradient" propagates it through them, pixel by pixel.

figure, axes = plt.subplots(2, 1, figsize=(5, 7), layout="constrained")
layout.show(geometry, middle, cat, bin=(1, 1), ax=axes[0])
s = 6
offset = np.arange(-2 * s, 3 * s)
for centre in (0, s):
    axes[1].plot(offset, np.clip(1 - abs(offset - centre) / s, 0, None), "o--", color="tab:orange")
    axes[1].bar(centre - s // 2 + np.arange(s), 0.1, width=1, alpha=0.4, edgecolor="tab:blue")
axes[1].set(xlabel="pixels", title=f"weights (lines) and boxes of two bins, s = {s}")

# %%
# At the border
# -------------
# VLFeat keeps the *centres* of bins inside the image, so the boxes of the outermost descriptors extend beyond it. They
# are clipped, and the remaining pixels get all of the bin's relevance (``clip="renormalise"``) or only their part
# (``clip="drop"``; the ledger has the rest).

layout.show(geometry, geometry.scales[-1].start, cat)

# %%
# Pyramid cells
# -------------
# By its centre, a descriptor belongs to one quadrant, one horizontal band and the whole image: three of eight cells.

frames, cells = geometry.frames, geometry.cells(((2, 2), (3, 1), (1, 1)))
figure, axes = plt.subplots(1, 3, figsize=(5.5, 2), layout="constrained", sharey=True)
for level, (axis, title) in enumerate(zip(axes, ("four quadrants", "three bands", "whole image"), strict=True)):
    axis.scatter(frames[:, 1], frames[:, 0], c=cells[:, level], s=3, cmap="tab10")
    axis.set(title=title, aspect="equal", ylim=(cat.shape[0], 0))
