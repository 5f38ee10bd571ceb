"""The class Explanation: a heatmap with its ledger, as pictures, files and reports.

Made by the traces of both stacks, public as `fvlrp.Explanation`. Hides the files, and that further relevances are
computed on demand.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypedDict, Unpack, cast

import numpy as np
import numpy.typing as npt

from ..data import files
from ..runtime.types import Json, Parsed
from ..show.colours import SCALE, Scale
from ..show.smoothing import Smoothing
from .ledger import Ledger
from .region import OVERVIEW
from .seen import Seen
from .target import Contrast, Label, One, plain

if TYPE_CHECKING:
    from PIL.Image import Image


# Explains the same image again, for given targets and depths (None: those of a report).
Again: TypeAlias = "Callable[[Sequence[One], Sequence[str] | None], list[Explanation]]"


class Picture(TypedDict, total=False):
    """The options of `Explanation.to_image`."""

    cmap: str
    symmetric: bool
    bar: bool
    scale: Scale
    smooth: bool


class Relevances(Mapping[str, npt.NDArray[np.float64]]):
    """Relevance at a model's representations, float64, by name.

    Each is computed on first access, by a new pass of the model over the image, and then kept. Those named in
    ``explain(keep=...)`` are computed at once. A pickled or loaded explanation has only those that were kept.
    """

    def __init__(
        self,
        names: Sequence[str],
        compute: Callable[[str], npt.ArrayLike] | None = None,
        kept: Mapping[str, npt.ArrayLike] | None = None,
    ) -> None:
        self._names, self._compute = tuple(names), compute
        self._kept = {name: np.asarray(values, np.float64) for name, values in (kept or {}).items()}

    @property
    def kept(self) -> dict[str, npt.NDArray[np.float64]]:
        """The relevances that have been computed."""
        return dict(self._kept)

    def __getitem__(self, name: str) -> npt.NDArray[np.float64]:
        if name in self._kept:
            return self._kept[name]
        if name not in self._names:
            raise KeyError(f"no relevance at {name!r}; representations are {', '.join(map(repr, self._names))}")
        if self._compute is None:
            raise KeyError(
                f"relevance at {name!r} was not kept, and a loaded or pickled explanation has no model to compute it: "
                f"explain with keep=({name!r},)"
            )
        self._kept[name] = np.asarray(self._compute(name), np.float64)
        return self._kept[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names if self._compute else self._kept)

    def __len__(self) -> int:
        return len(self._names if self._compute else self._kept)

    def __getstate__(self) -> dict[str, object]:
        """Without the model."""
        return {"_names": self._names, "_compute": None, "_kept": self._kept}

    def __copy__(self) -> Relevances:
        return self

    def __deepcopy__(self, memo: dict[int, object]) -> Relevances:
        return self  # immutable but for its cache


class Explanation:
    """Why a target has its score: a heatmap, and a ledger of where the relevance went.

    An explanation holds the heatmap, the image, the rules and a reference to its model, but no forward pass. The model
    is not pickled or saved with it.

    Attributes
    ----------
    heatmap : float64 (H, W)
        Relevance per pixel of the input image, rows first; positive speaks for the target. Its sum is the ledger's
        "heatmap", plus "class_token" where the ledger has it: relevance without a position, spread evenly.
    score : float
        f(x) of the target: the SVM's score or the network's logit.
    target : class name, value of ``classes_`` or Contrast
    depth : str
        The representation down to which relevance was decomposed exactly.
    rules : FisherRules or NetworkRules
        All choices that were made; for a loaded explanation, the same as a dictionary.
    relevance : mapping of str to float64 array
        Relevance at the model's representations, computed on access.
    ledger : Ledger
        Where every unit of relevance went.
    image : uint8 (H, W, 3)
        The photograph, upright.
    seen : Seen
        The part of the photograph that the model saw, and in how many pixels: the map has no finer details. Outside
        this part, which a network may have cut off, pictures are hatched.
    model : str
        The kind of classifier: "Fisher vector" or "network".
    best : tuple of (class, float)
        The classes with the five highest scores, and their scores.
    region : (y0, x0, y1, x1) or None
        The pixels that were explained at `depth`, if not all. Outside them, pictures of finer depths are hatched, too.
    stride : (int, int)
        Pixels, as the model saw them, between neighbouring positions of the representation at `depth`, along y and x.
        Smoothing for display averages over them.

    Examples
    --------
    >>> from skimage import data
    >>> ex = fvlrp.load("voc20").explain(data.chelsea(), "cat", depth="descriptor")
    >>> ex.heatmap.shape, ex.target, ex.depth
    ((300, 451), 'cat', 'descriptor')
    >>> ex.ledger.closes()
    True
    >>> ex.save("cat.npz")
    >>> bool((fvlrp.Explanation.load("cat.npz").heatmap == ex.heatmap).all())
    True
    """

    def __init__(
        self,
        *,
        heatmap: npt.NDArray[np.float64],
        score: float,
        target: Label | Contrast,
        depth: str,
        rules: object,
        relevance: Relevances,
        ledger: Ledger,
        image: npt.NDArray[np.uint8],
        model: str = "",
        best: Sequence[tuple[Label, float]] = (),
        seen: Seen | None = None,
        again: Again | None = None,
        region: Sequence[int] | None = None,
        stride: Sequence[int] = (1, 1),
    ) -> None:
        self.heatmap, self.score, self.target, self.depth = heatmap, float(score), target, depth
        self.rules, self.relevance, self.ledger, self.image = rules, relevance, ledger, image
        self.model, self.best = model, tuple((name, float(found)) for name, found in best)
        self.region = None if region is None else tuple(region)
        self.stride = int(stride[0]), int(stride[1])
        self.seen = Seen.whole(image.shape, image.shape) if seen is None else seen
        self._again = again

    def __getstate__(self) -> dict[str, object]:
        """Without the model."""
        return {**vars(self), "_again": None}

    def __repr__(self) -> str:
        height, width = self.heatmap.shape
        return (
            f"<Explanation of {str(self.target)!r}: score {self.score:+.4g}, depth {self.depth!r}, {height} x {width}>"
        )

    @property
    def holds(self) -> tuple[int, int, int, int]:
        """Where the map is that of `depth`: top, left, bottom, right. Pictures are hatched outside."""
        if self.region is None or self.depth in OVERVIEW:
            return self.seen.box
        top, left, bottom, right = self.region
        return top, left, bottom, right

    @property
    def smoothing(self) -> Smoothing | None:
        """How the map is smoothed for display; None for a map without a mesh, whose stride is 1."""
        return None if max(self.stride) == 1 else Smoothing(self.seen.spacing(self.stride), self.seen.box)

    def shown(self, smooth: bool) -> tuple[npt.NDArray[np.float64], str]:
        """The heatmap as pictures show it, and what they say of it: "smoothed for display, sigma 7.2 px", or ""."""
        found = self.smoothing if smooth else None
        return (self.heatmap, "") if found is None else (found(self.heatmap), found.words)

    def to_image(
        self,
        *,
        cmap: str = "safe",
        symmetric: bool = True,
        bar: bool = False,
        scale: Scale = SCALE,
        smooth: bool = False,
    ) -> Image:
        """The heatmap in colours.

        Parameters
        ----------
        cmap : {"safe", "paper", "grey"}
        symmetric : bool
            Whether 0 is the middle of the colour map.
        bar : bool
            Whether to add a colour bar.
        scale : float, str, pair or None
            The |R| at the end of the colour map: a number, a percentile of |R| such as "99.5%" (the default), or None
            for the largest |R|. If not `symmetric`, a pair (low, high).
        smooth : bool
            Whether to smooth the map of a network's layer for display: interpolated linearly between the positions of
            the layer, with the same sum and without the mesh that winner-take-all pooling leaves. A line below the
            picture says so. Maps of the pixels and of Fisher vectors, which have no mesh, stay as they are, and so do
            `heatmap` and .npz files.

        Returns
        -------
        PIL.Image.Image
        """
        from ..show import render

        plane, words = self.shown(smooth)
        drawn = render.to_image(plane, cmap=cmap, symmetric=symmetric, bar=bar, scale=scale, seen=self.holds)
        return render.noted(drawn, words)

    def overlay(
        self, *, cmap: str = "safe", gamma: float = 0.5, scale: float | str | None = SCALE, smooth: bool = False
    ) -> Image:
        """The heatmap over the photograph, more opaque where |R| is larger: a PIL image. Options as for `to_image`."""
        from PIL import Image

        from ..show import render

        plane, words = self.shown(smooth)
        drawn = render.overlay(self.image, plane, cmap=cmap, gamma=gamma, scale=scale)
        return render.noted(Image.fromarray(render.hatched(drawn, self.holds)), words)

    def alpha(
        self, *, gamma: float = 0.5, background: int = 0, scale: float | str | None = SCALE, smooth: bool = False
    ) -> Image:
        """The photograph with positive relevance as its alpha channel over `background` (0 is black): a PIL image."""
        from PIL import Image

        from ..show import render

        plane, words = self.shown(smooth)
        drawn = render.alpha(self.image, plane, gamma=gamma, background=background, scale=scale)
        return render.noted(Image.fromarray(render.hatched(drawn, self.holds)), words)

    def again(self, target: Sequence[One] | None = None, depth: Sequence[str] | None = None) -> list[Explanation]:
        """Explain the same image by the same rules for other targets or depths: a list, target by target.

        Parameters
        ----------
        target : sequence of targets, optional
            None: the target of this explanation.
        depth : sequence of str, optional
            None: the depths that a report shows, from coarse to fine, and the depth of this explanation.

        Raises
        ------
        ValueError
            The explanation was loaded or pickled, and so has no model.
        """
        if self._again is None:
            raise ValueError("a loaded or pickled explanation has no model: explain the image again with the model")
        return self._again([self.target] if target is None else target, depth)

    def components(self) -> npt.NDArray[np.float64]:
        """Relevance that reaches the descriptors through each mixture component (visual word) of a Fisher vector, (K,).

        The sum over components is the relevance of all descriptors; the ledger has what pooling absorbed above them.

        Raises
        ------
        ValueError
            The model is not a Fisher vector; or the explanation was loaded or pickled, and was not made with
            ``keep=("component",)``.
        """
        try:
            return self.relevance["component"]
        except KeyError as error:
            raise ValueError(f"only Fisher-vector explanations have components: {error.args[0]}") from error

    def report(
        self,
        path: str | os.PathLike[str],
        *,
        target: Sequence[One] | None = None,
        depth: Sequence[str] | None = None,
        cmap: str = "safe",
        scale: float | str | None = SCALE,
        smooth: bool = False,
        name: str = "",
    ) -> None:
        """Write a self-contained HTML report: the photograph under this heatmap and those of other depths.

        Parameters
        ----------
        path : path
        target, depth
            As for `again`. A loaded or pickled explanation shows only itself.
        cmap, scale, smooth
            As for `to_image`; the reader can switch smoothing on and off.
        name : str
            Name of the photograph.

        Raises
        ------
        ValueError
            An unknown target, depth or `cmap`; or `target` or `depth` for a loaded or pickled explanation.
        OSError
            The file cannot be written.
        """
        from . import report

        alone = self._again is None and target is None and depth is None
        explanations = [self] if alone else self.again(target, depth)
        report.write(path, [(name, explanations)], cmap=cmap, scale=scale, smooth=smooth)

    def _repr_html_(self) -> str:
        from . import report

        return report.cell([self] if self._again is None else self.again())

    def _repr_png_(self) -> bytes:
        from ..show import render

        return render.png_bytes(self.to_image())

    def summary(self) -> dict[str, Json]:
        """Everything but the arrays, as plain values for JSON.

        "heatmap_sum" is the sum of the map: the ledger's "heatmap", plus "class_token" where the ledger has it.
        """
        rules: Json = self.rules.to_dict() if hasattr(self.rules, "to_dict") else cast("Json", self.rules)
        return {
            "target": plain(self.target),
            "depth": self.depth,
            "region": None if self.region is None else list(self.region),
            "score": self.score,
            "heatmap_sum": float(self.heatmap.sum()),
            "shape": list(self.heatmap.shape),
            "seen": self.seen.to_dict(),
            "stride": list(self.stride),
            "rules": rules,
            "ledger": self.ledger.to_dict(),
            "model": self.model,
            "best": [[plain(name), score] for name, score in self.best],
        }

    def save(self, path: str | os.PathLike[str], *, level: int | None = None, **options: Unpack[Picture]) -> None:
        """Write a picture (.png) or the numbers (.npz), atomically.

        Parameters
        ----------
        path : path
            Its suffix decides. A picture carries target, depth, score, seen and ledger as text chunks, and how it
            was smoothed. An .npz file holds the heatmap, the image and all relevances computed so far; `load` reads it
            back.
        level : int, optional
            Of a picture's compression, 0 to 9 (smallest, but slow).
        **options
            Of a picture, as for `to_image`.

        Raises
        ------
        ValueError
            Another suffix, or options for an .npz file.
        OSError
            The file cannot be written.
        """
        suffix = Path(path).suffix.lower()
        if suffix == ".png":
            from ..show import render

            summary = self.summary()
            words = {name: str(summary[name]) for name in ("target", "depth", "score")}
            words |= {name: json.dumps(summary[name]) for name in ("seen", "ledger")}
            if options.get("smooth") and self.smoothing:
                words["display"] = self.smoothing.words
            picture = self.to_image(**options)
            render.write_png(path, picture, words, level=render.LEVEL if level is None else level)
        elif suffix == ".npz":
            given = [*options, *([] if level is None else ["level"])]
            if given:
                raise ValueError(f"{', '.join(given)} belongs to a picture (.png); numbers (.npz) have no options")
            kept = (
                {f"relevance/{name}": values for name, values in self.relevance.kept.items()} if self.relevance else {}
            )
            header = {"kind": files.EXPLANATION, **self.summary(), "exact": self.ledger.exact}
            files.save_arrays(path, header, {"heatmap": self.heatmap, "image": self.image, **kept})
        else:
            raise ValueError(f"path must end in .png (picture) or .npz (numbers), got {os.fspath(path)!r}")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Explanation:
        """Read an explanation that `save` wrote as .npz; its model is not in the file.

        Raises
        ------
        OSError
            The file is missing or cannot be opened.
        ValueError
            The file does not hold an explanation, or is damaged.
        """
        header, arrays = files.load_arrays(path, files.EXPLANATION)
        try:
            heatmap, image = arrays.pop("heatmap"), arrays.pop("image")
            kept = {name.removeprefix("relevance/"): values for name, values in arrays.items()}
            if heatmap.ndim != 2 or image.shape != (*heatmap.shape, 3) or image.dtype != np.uint8:
                raise ValueError(f"a heatmap of {heatmap.shape} and an image of {image.shape} do not belong together")
            if bad := np.count_nonzero(~np.isfinite(heatmap)):
                raise ValueError(f"its heatmap has {bad} values that are NaN or infinite")
            seen = Seen.from_dict(header["seen"]) if "seen" in header else None  # older files have none
            region = header.get("region")
            for name, box in (("region", region), ("seen", None if seen is None else seen.box)):
                if box is not None:
                    _check_box(name, box, heatmap.shape)
            if seen is not None and min(seen.height, seen.width) < 1:
                raise ValueError(f"a part of {seen.height} x {seen.width} pixels cannot have been seen")
            return cls(
                heatmap=heatmap.astype(np.float64, copy=False),
                score=header["score"],
                target=header["target"],
                depth=header["depth"],
                rules=header["rules"],
                relevance=Relevances(tuple(kept), None, kept),
                ledger=Ledger(header["ledger"], header["exact"]),
                image=image,
                model=header.get("model", ""),
                best=header.get("best", ()),
                region=region,
                stride=header.get("stride", (1, 1)),
                seen=seen,
            )
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise ValueError(f"{os.fspath(path)} is not an explanation that this fvlrp can read: {error}") from error


def _check_box(name: str, box: Parsed, shape: tuple[int, ...]) -> None:
    """ValueError if a file's box (y0, x0, y1, x1) is no part of an image of `shape`."""
    if not isinstance(box, list | tuple) or len(box) != 4 or not all(isinstance(n, int) for n in box):
        raise ValueError(f"{name} must be four integers (y0, x0, y1, x1), got {box!r}")
    y0, x0, y1, x1 = box
    if not (0 <= y0 < y1 <= shape[0] and 0 <= x0 < x1 <= shape[1]):
        raise ValueError(f"{name} {box!r} is no part of an image of {shape}")
