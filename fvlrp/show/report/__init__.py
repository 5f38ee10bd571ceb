"""A self-contained HTML report of photographs and heatmaps, which works offline from a single file.

For core, which passes plain values instead of explanations. `page` builds the HTML, `coding` encodes pictures and
heatmaps; page.js, page.css and viewer.html are included in the page.
"""

from .page import Map, Photograph, Target, Viewer, frame, pieces

__all__ = ["Map", "Photograph", "Target", "Viewer", "frame", "pieces"]
