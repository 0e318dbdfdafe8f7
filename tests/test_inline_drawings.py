"""A drawing in the page has a name, whatever its alt text holds."""

import sys
from pathlib import Path

import pytest

pytest.importorskip("sphinx")
sys.path.append(str(Path(__file__).parents[1] / "book/_ext"))
import inline_drawings


def test_the_alt_text_becomes_the_name_of_the_drawing():
    svg = '<svg viewBox="0 0 1 1"><path d="M0 0"/></svg>'
    told = inline_drawings.named(svg, 'left of "a" & below')
    assert told.startswith('<svg aria-label="left of &quot;a&quot; &amp; below" viewBox')
