"""A report of explanations as one HTML file that works offline: pictures inside, no scripts, nothing to fetch."""

from __future__ import annotations

import base64
from collections.abc import Sequence

from ..show import render
from .explanation import Explanation

TEMPLATE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{{ title }}</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 1200px; padding: 0 1rem; color: #222; }
figure { display: inline-block; margin: 0 1rem 1rem 0; vertical-align: top; }
figure img { height: 230px; display: block; image-rendering: auto; }
figcaption { color: #555; font-size: 13px; }
table { border-collapse: collapse; font-size: 13px; margin: .5rem 0 2rem; }
td, th { padding: .15rem .8rem .15rem 0; text-align: right; font-variant-numeric: tabular-nums; }
td:first-child, th:first-child { text-align: left; }
section { border-top: 1px solid #ddd; padding-top: 1rem; }
</style>
</head>
<body>
<h1>{{ title }}</h1>
<p>Yellow and red speak for the class, blue against it; green is neutral. Every heatmap has a scale of its own and
saturates at the 99.5th percentile of its |R|. Each ledger adds up to the score.</p>
{% for group in groups %}
<section>
<h2>{{ group.name }}: {{ group.target }}, score {{ "%+.3f"|format(group.score) }}</h2>
<figure><img src="{{ group.photograph }}" alt="the photograph"><figcaption>photograph</figcaption></figure>
{% for panel in group.panels %}
<figure><img src="{{ panel.image }}" alt="heatmap at depth {{ panel.depth }}">
<figcaption>{{ panel.depth }}, sum {{ "%+.3g"|format(panel.sum) }}</figcaption></figure>
{% endfor %}
<table>
<tr><th>ledger</th>{% for panel in group.panels %}<th>{{ panel.depth }}</th>{% endfor %}</tr>
{% for stage in group.stages %}
<tr><td>{{ stage }}</td>
{% for panel in group.panels %}
<td>{% if stage in panel.ledger %}{{ "%+.4g"|format(panel.ledger[stage]) }}{% endif %}</td>
{% endfor %}</tr>
{% endfor %}
</table>
</section>
{% endfor %}
{% if failed %}
<section><h2>Could not be explained</h2>
<ul>{% for failure in failed %}<li>{{ failure.photo }}: {{ failure.error }}</li>{% endfor %}</ul></section>
{% endif %}
</body>
</html>
"""


def html(
    groups: Sequence[tuple[str, Sequence[Explanation]]],
    title: str = "Why the classifier decided",
    failed: Sequence[dict] = (),
    cmap: str = "paper",
) -> str:
    """The report as text.

    Parameters
    ----------
    groups : sequence of (name, explanations)
        Explanations of one photograph and one target, at any depths.
    failed : sequence of {"photo": ..., "error": ...}
        Photographs that could not be explained, listed at the end.

    Raises
    ------
    ImportError
        Jinja2, the extra ``report``, is missing.
    """
    template = environment().from_string(TEMPLATE)
    return template.render(title=title, failed=failed, groups=[_group(*group, cmap) for group in groups])


def environment():
    """What renders the report. Raises ImportError as `html` does."""
    try:
        from jinja2 import Environment
    except ImportError:
        raise ImportError("a report needs Jinja2: pip install 'fvlrp[report]'") from None
    return Environment(autoescape=True, trim_blocks=True)


def _group(name: str, explanations: Sequence[Explanation], cmap: str) -> dict:
    first = explanations[0]
    panels = [
        {
            "depth": ex.depth,
            "sum": float(ex.heatmap.sum()),
            "image": _inline(render.colour(ex.heatmap, cmap=cmap)),
            "ledger": ex.ledger.to_dict(),
        }
        for ex in explanations
    ]
    return {
        "name": name,
        "target": first.target,
        "score": first.score,
        "photograph": _inline(first.image),
        "panels": panels,
        "stages": _stages([panel["ledger"] for panel in panels]),
    }


def _stages(ledgers: Sequence[dict]) -> list[str]:
    """The rows of a table of ledgers: as each of them has it, what arrived comes last, whatever a finer depth adds."""
    stages = dict.fromkeys(stage for ledger in ledgers for stage in ledger)
    last = ["rounding", "heatmap"]
    return [stage for stage in stages if stage not in last] + [stage for stage in last if stage in stages]


def _inline(image) -> str:
    return "data:image/png;base64," + base64.b64encode(render.png_bytes(image)).decode()
