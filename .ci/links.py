"""Check that every internal link and picture of the built pages resolves; exit 1 and list those that do not.

python links.py SITE
"""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """The links of a page and the names that a link may lead to."""

    def __init__(self, path):
        super().__init__()
        self.links, self.names = [], set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.names |= {attrs[key] for key in ("id", "name") if attrs.get(key)}
        self.links += [attrs[key] for key in ("href", "src") if attrs.get(key)]


def broken(site):
    pages = {path: Page(path) for path in site.rglob("*.html")}
    for path, page in pages.items():
        for link in page.links:
            scheme, host, file, _, name = urlsplit(link)
            if scheme or host or path.name in ("genindex.html", "search.html"):
                continue
            target = (path.parent / unquote(file)).resolve() if file else path
            target = target / "index.html" if target.is_dir() else target
            if not target.is_file() or (name and target in pages and unquote(name) not in pages[target].names):
                yield f"{path.relative_to(site)}: {link}"


def main(site):
    wrong = sorted(set(broken(site.resolve())))
    print("\n".join(wrong) or f"every internal link of {len(list(site.rglob('*.html')))} pages resolves")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
