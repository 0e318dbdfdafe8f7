"""What `lean_pages` takes out of a finished page, and what it leaves."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "book/_ext"))
import lean_pages

HEAD = """<head><meta charset="utf-8" />
<meta name="viewport" content="a"/><title>T</title><meta name="viewport" content="b">
<script defer src="../_static/scripts/fontawesome.js?digest=5"></script>
<script>const THEBE_JS_URL = "https://unpkg.com/thebe";</script>
<script async src="../_static/sphinx-thebe.js"></script>
<script>window.MathJax = {}</script><script src="../_static/mathjax/tex-mml-chtml.js"></script>
<link href="../_static/sphinx-thebe.css"><link href="../_static/medil.css">
<script src="../_static/doctools.js"></script></head>"""
DRAWINGS = lean_pages.icons('{bars:[448,512,["navicon"],"f0c9","M0 96z"]}')


def page(body: str) -> str:
    return lean_pages.lean(f"{HEAD}<body>{body}</body>", DRAWINGS)


def test_nothing_is_loaded_that_no_page_uses():
    told = page("<p>text</p>")
    assert "thebe" not in told.lower() and "fontawesome" not in told and "MathJax" not in told
    assert "medil.css" in told and "doctools.js" in told
    assert told.count('name="viewport"') == 1


def test_equations_keep_their_renderer():
    told = page('<div class="math notranslate">x</div>')
    assert "window.MathJax" in told and "tex-mml-chtml.js" in told


def test_icons_are_drawn_in_the_page():
    told = page('<i class="fa-solid fa-navicon fa-lg"></i><i class="fa-solid fa-unknown"></i>')
    assert '<svg class="svg-inline--fa fa-solid fa-navicon fa-lg" viewBox="0 0 448 512"' in told
    assert (
        '<i class="fa-solid fa-unknown"></i>' in told
    )  # what has no drawing stays visible in HTML


def test_a_drawer_is_read_by_its_title():
    told = page('<summary aria-label="Toggle hidden content"><span>Show code</span></summary>')
    assert "<summary><span>Show code</span></summary>" in told


def test_a_figure_links_to_its_whole_size_and_a_live_picture_does_not():
    image = '<img alt="Stairs vanish." src="../_images/a.png" />'
    link = f'<a class="whole-size" href="../_images/a.png" title="whole size">{image}</a>'
    assert link in page(f'<figure class="wide align-default" id="fig-a">\n{image}\n</figure>')
    assert "whole-size" not in page(f'<figure class="medil-live">{image}</figure>')
