"""
Ten minutes with fvlrp
======================

Explain a photograph, choose a depth, read the ledger, train a classifier of your own and keep the results.
"""

# %%
# Explain
# -------
# The built-in model ``"voc20"`` has the twenty classes of PASCAL VOC. A photograph may be a path, a PIL image or an
# array.

import matplotlib.pyplot as plt
from skimage import data

import fvlrp

clf = fvlrp.load("voc20")
photo = data.astronaut()
trace = clf.trace(photo)  # one forward pass, kept
print("best class:", trace.top)
print(f"its score: {trace.scores.max():+.3f}")

# %%
# A score is a signed distance from a decision boundary: positive means yes. An explanation decomposes *that number*
# into contributions of pixels. Evidence for the person is orange, evidence against it blue.

ex = trace.explain("person")
ex

# %%
# Choose a depth
# --------------
# Relevance is decomposed exactly down to a representation, and then spread evenly over the receptive fields of that
# representation. Coarse depths show where the evidence is, fine depths which edges it consists of. The score is the
# same; how much of it reaches the pixels depends on the depth, and the ledger has the rest. One backward pass serves
# all depths. Orange speaks for the person, blue against.

depths = trace.explain("person", depth=("vector", "descriptor", "bin", "gradient"))
figure, grid = plt.subplots(3, 2, figsize=(5, 7.5), layout="constrained")
axes = grid.ravel()
axes[0].imshow(photo)
axes[0].set_title(f"person, score {ex.score:+.2f}")
axes[1].imshow(depths[2].overlay())
axes[1].set_title('"bin", over it')
for axis, each in zip(axes[2:], depths, strict=True):
    axis.imshow(each.to_image(cmap="safe", scale="99.5%"))
    axis.set_title(f'"{each.depth}"')
for axis in axes:
    axis.set_axis_off()

# %%
# Read the ledger
# ---------------
# The ledger says where all relevance went: into the heatmap, into the stabilisers epsilon, or into representations
# without pixels. Each entry is computed from its own formula, so the balance is a proof and not a definition.

print(ex.ledger)
print("closes:", ex.ledger.closes())

# %%
# A large entry is a finding. Here the stabilisers absorb much relevance, due to the paper's choice of epsilon = 100.
# Smaller stabilisers absorb less, but small denominators then amplify noise.

rules = fvlrp.rules.FisherRules(epsilon_pool=1, epsilon_pca=1)
print(trace.explain("person", rules=rules).ledger)

# %%
# Train your own
# --------------
# A classifier is trained on images of any size with one label each. This toy example uses sixty crops of two textures,
# with few Gaussians and a coarse grid to make it fast.

import numpy as np

rng = np.random.default_rng(0)
sources = {"brick": data.brick(), "grass": data.grass()}
images, labels = [], []
for name, texture in sources.items():
    for y, x in rng.integers(0, 512 - 96, (30, 2)):
        images.append(texture[y : y + 96, x : x + 96])
        labels.append(name)

mine = fvlrp.FisherVectorClassifier(n_components=16, step=6, bin_sizes=(4, 8), random_state=0)
mine.fit(images[::2], labels[::2])
print("accuracy on the other half:", mine.score(images[1::2], labels[1::2]))

# %%
# Half brick, half grass: in the heatmap for the class "grass", the bricks speak against it (blue), the grass for it.

both = np.hstack([data.brick()[:128, :128], data.grass()[:128, :128]])
figure, axes = plt.subplots(1, 2, figsize=(5, 2.5), layout="constrained")
axes[0].imshow(both, cmap="gray")
axes[1].imshow(mine.explain(both, "grass", depth="descriptor").to_image(cmap="safe"))
for axis in axes:
    axis.set_axis_off()

# %%
# Keep it
# -------
# Pictures, numbers and models are saved as separate files; none of them is a pickle.

from pathlib import Path
from tempfile import TemporaryDirectory

with TemporaryDirectory() as folder:
    ex.save(Path(folder, "person.png"))  # the map; ex.overlay() and ex.alpha() put it on the photograph
    ex.save(Path(folder, "person.npz"))  # the numbers, for other programs
    mine.save(Path(folder, "mine.fvlrp"))
    print(sorted(path.name for path in Path(folder).iterdir()))
