"""An HTML report that needs nothing else: photographs under heatmaps, one file, from file://, with no network.

For core, which makes these plain values of explanations. `page` builds the HTML, `coding` packs pictures and heatmaps
into it; page.js, page.css and viewer.html are what the browser gets.
"""

from .page import Map, Photograph, Target, Viewer, frame, pieces

__all__ = ["Map", "Photograph", "Target", "Viewer", "frame", "pieces"]
