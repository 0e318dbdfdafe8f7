"""A fragment of the book on a page of its own, opened as a file in a browser."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from eval import browser

INTERACTIVE = Path(__file__).parents[1] / "book/interactive"


@contextmanager
def opened(site: Path, name: str) -> Iterator[browser.Page]:
    """The fragment ``interactive/NAME/NAME.html`` on a page that lies in the folder `site`.

    The test is skipped where Chromium is absent.
    """
    if browser.program() is None:
        pytest.skip("needs Chromium")
    (site / "interactive").symlink_to(INTERACTIVE)
    (site / "book").mkdir()
    body = (INTERACTIVE / name / f"{name}.html").read_text("utf-8")
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{name}</title>'
    (site / "book/page.html").write_text(head + body, "utf-8")
    with browser.page() as page:
        page.open((site / "book/page.html").as_uri())
        yield page
