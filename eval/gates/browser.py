"""What a browser finds on a page: console errors, overflow on a phone, violations of axe-core."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from eval.browser import Page

WIDE, PHONE = (1280, 900), (360, 740)  # CSS pixels
SETTLE_S, MOST_WAIT_S = 0.2, 10.0
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
WIDEST = """[...document.querySelectorAll('body *')].filter(e =>
  e.getBoundingClientRect().right > document.documentElement.clientWidth + 1 &&
  !e.closest('pre, .math, table, .bd-sidebar-secondary'))
  .slice(0, 3).map(e => e.tagName.toLowerCase() + '.' + e.className).join(', ')"""
BUSY = "document.getAnimations().length > 0 || !!document.querySelector('[aria-busy=true]')"
DARK = "document.documentElement.dataset.theme = document.documentElement.dataset.mode = '{}'"
RUN = "axe.run(document, {resultTypes: ['violations'], iframes: false}).then(found => \
found.violations.map(v => [v.id, v.impact, v.nodes.length, v.nodes[0].target.join(' ')]))"


def settled(page: Page) -> None:
    """Wait until fonts are there and nothing moves or is being loaded, at most `MOST_WAIT_S`."""
    end = time.monotonic() + MOST_WAIT_S
    page.evaluate("document.fonts.ready.then(() => true)")
    time.sleep(SETTLE_S)
    while page.evaluate(BUSY) and time.monotonic() < end:
        time.sleep(SETTLE_S)


def console(page: Page) -> Iterable[str]:
    """What went wrong since the last call: errors, failed requests, other hosts."""
    problems, page.problems[:] = list(dict.fromkeys(page.problems)), []
    return [f"console: {problem.splitlines()[0]}" for problem in problems]


def overflow(page: Page) -> Iterable[str]:
    """How far a page is wider than a phone."""
    page.size(*PHONE)
    settled(page)
    if (wider := page.evaluate(OVERFLOW)) > 0:
        yield f"{wider} pixels wider than {PHONE[0]}: {page.evaluate(WIDEST)}"


def violations(page: Page, axe: str, mode: str) -> Iterable[str]:
    """What axe-core finds in a colour mode, ``light`` or ``dark``, of any impact."""
    page.evaluate(DARK.format(mode))
    settled(page)
    page.evaluate(f"{axe};0")
    found: list[Any] = page.evaluate(RUN)
    for rule, impact, count, where in found:
        yield f"axe ({mode}): {rule}, {impact}, {count} times, such as {where}"


def findings(page: Page, path: Path, axe: str) -> list[str]:
    """All that a browser finds on a page."""
    page.size(*WIDE)
    page.open(path.resolve().as_uri())
    settled(page)
    found = list(console(page))
    for mode in ("light", "dark"):
        found += violations(page, axe, mode)
    found += overflow(page)
    return found + list(console(page))


def axe_source() -> str | None:
    """The script of axe-core from its package; None where that is missing."""
    from importlib.util import find_spec

    spec = find_spec("axe_core_python")
    if spec is None or not spec.submodule_search_locations:
        return None
    return (Path(spec.submodule_search_locations[0]) / "axe.min.js").read_text("utf-8")
