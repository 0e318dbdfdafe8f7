"""Sphinx extension: a page loads only what it uses, and says what it is.

The theme loads 1.5 MB of icons to draw about ten, MathJax on pages without an equation and a
launcher that no page uses; it names every drawer of code alike, so a screen reader says "Toggle
hidden content" instead of the drawer's title. Figures are shown as wide as the text, smaller than
they are drawn. All of that is mended in the finished HTML; a figure links to its whole size.
"""

from __future__ import annotations

import re
from pathlib import Path

ICONS = "_static/scripts/fontawesome.js"
OF_PAGE = ("mathjax/tex-mml-chtml.js", "window.MathJax")  # what a page without equations drops
UNUSED = ("THEBE_JS_URL", "sphinx-thebe", "scripts/fontawesome.js")
SCRIPT = re.compile(r"[ \t]*<script\b[^>]*>.*?</script>\n?", re.DOTALL)
LINK = re.compile(r"[ \t]*<link\b[^>]*>\n?")
VIEWPORT = re.compile(r'\s*<meta name="viewport"[^>]*>')
ICON = re.compile(r'<i class="(fa[^"]*?\bfa-(?!solid|regular|brands)([a-z-]+)[^"]*)"[^>]*></i>')
FIGURE = re.compile(r'(<figure class="[^"]*\balign-[^>]*>\s*)(<img [^>]*src="([^"]*)"[^>]*>)')
WHOLE = r'\1<a class="whole-size" href="\3" title="whole size">\2</a>'
ONE_VIEWPORT = '<meta name="viewport" content="width=device-width, initial-scale=1">'


def lean(page: str, paths: dict[str, str]) -> str:
    """A finished page without what it does not use.

    Args:
        page: Its HTML.
        paths: Name of an icon to its SVG.
    """
    dropped = UNUSED if 'class="math' in page else (*UNUSED, *OF_PAGE)

    def kept(match: re.Match) -> str:
        return "" if any(name in match[0] for name in dropped) else match[0]

    head, end, body = page.partition("</head>")
    head = LINK.sub(kept, SCRIPT.sub(kept, head))
    head = VIEWPORT.sub("", head).replace("<title>", f"{ONE_VIEWPORT}\n    <title>", 1)
    body = body.replace(' aria-label="Toggle hidden content"', "")
    body = body.replace('role="doc-biblioentry"', 'role="listitem"')  # it stands in a role="list"
    body = FIGURE.sub(WHOLE, body)
    body = body.replace(
        'class="bd-sidebar-primary bd-sidebar"',
        'class="bd-sidebar-primary bd-sidebar" role="region" aria-label="The book"',
    )
    return head + end + ICON.sub(lambda match: _drawn(match, paths), body)


def _drawn(match: re.Match, paths: dict[str, str]) -> str:
    """An icon as an inline drawing, as the icons' own script would draw it."""
    classes, name = match[1], match[2]
    if name not in paths:
        return match[0]
    return paths[name].replace("<svg ", f'<svg class="svg-inline--fa {classes}" ', 1)


def icons(script: str) -> dict[str, str]:
    """The drawings of an icon script by name.

    Example:
        >>> icons('x={bars:[448,512,["navicon"],"f0c9","M0 96z"]}')["bars"]
        '<svg viewBox="0 0 448 512" aria-hidden="true"><path fill="currentColor" d="M0 96z"/></svg>'
    """
    found = re.findall(
        r'[{,]"?([a-z][a-z0-9-]*)"?:\[(\d+),(\d+),\[([^\]]*)\],"\w+","(M[^"]+)"\]', script
    )
    drawings = {}
    for name, width, height, others, path in found:
        svg = (
            f'<svg viewBox="0 0 {width} {height}" aria-hidden="true">'
            f'<path fill="currentColor" d="{path}"/></svg>'
        )
        for one in (name, *re.findall(r'"([a-z-]+)"', others)):
            drawings.setdefault(one, svg)
    return drawings


def finish(app, error: Exception | None) -> None:
    """Mend every page of a finished build."""
    if error or app.builder.name != "html":
        return
    out = Path(app.outdir)
    drawings = icons((out / ICONS).read_text("utf-8"))
    for path in out.rglob("*.html"):
        path.write_text(lean(path.read_text("utf-8"), drawings), "utf-8")
    for path in out.glob("_static/scripts/*.map"):
        path.unlink()
    (out / ICONS).unlink()


def setup(app) -> dict:
    """Run last."""
    app.connect("build-finished", finish, priority=900)
    return {"parallel_read_safe": True}
