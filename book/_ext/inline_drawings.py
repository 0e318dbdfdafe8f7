"""Sphinx extension: a figure of class `inline` holds its SVG in the page.

There it takes the page's colours, light and dark, and its words can be selected and read aloud.
The alt text of the figure becomes its name.
"""

from __future__ import annotations

from html import escape
from pathlib import Path

from docutils import nodes
from sphinx.transforms.post_transforms import SphinxPostTransform


def named(svg: str, alt: str) -> str:
    """A drawing with an accessible name.

    Example:
        >>> named('<svg role="img"></svg>', "Two boxes")
        '<svg aria-label="Two boxes" role="img"></svg>'
    """
    return svg.replace("<svg ", f'<svg aria-label="{escape(alt)}" ', 1)


class InlineDrawings(SphinxPostTransform):
    """Replace images of class `inline` by their files."""

    default_priority = 5
    formats = ("html",)

    def run(self, **options) -> None:
        """Every drawing of the page."""
        for image in list(self.document.findall(nodes.image)):
            if "inline" in image["classes"]:
                svg = (Path(self.app.srcdir) / image["uri"]).read_text("utf-8")
                image.replace_self(nodes.raw("", named(svg, image["alt"]), format="html"))


def setup(app) -> dict:
    """Before images are converted or copied for the page."""
    app.add_post_transform(InlineDrawings)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
