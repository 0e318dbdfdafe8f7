"""Check a rendered book."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from eval.browser import page as fresh_page
from eval.browser import program
from eval.gates.browser import axe_source, findings
from eval.gates.links import dead_links, foreign_loads, weight_bytes

FIRST = "book/intro.html"
FIRST_VISIT_BYTES = 1_500_000
THEIRS = ("genindex", "py-modindex", "search", "index")  # pages that the theme or Sphinx makes
BROWSERS = 2
PARTS = "interactive"  # folder of what other pages include


def pages(book: Path) -> list[Path]:
    """The pages that people read."""
    every = sorted(book.rglob("*.html"))
    first = {path: path.relative_to(book).parts[0] for path in every}
    return [p for p in every if p.stem not in THEIRS and first[p][0] != "_" and first[p] != PARTS]


def without_browser(book: Path) -> Iterator[str]:
    """Findings in the files of a book."""
    for path in pages(book):
        for finding in (*dead_links(path), *foreign_loads(path)):
            yield f"{path.relative_to(book)}: {finding}"
    if (size := weight_bytes(book / FIRST)) > FIRST_VISIT_BYTES:
        yield f"{FIRST}: a first visit loads {size:,} bytes, above {FIRST_VISIT_BYTES:,}"


def in_browser(book: Path, axe: str) -> Iterator[str]:
    """Findings of `BROWSERS` side by side in a book, the largest pages first."""
    largest_first = sorted(pages(book), key=lambda path: -path.stat().st_size)
    waiting = iter(largest_first)  # each takes the next
    with (
        tqdm(total=len(largest_first), desc="pages", unit="page", disable=None) as bar,
        ThreadPoolExecutor(BROWSERS) as pool,
    ):
        for found in [pool.submit(of_one, waiting, axe, bar) for _ in range(BROWSERS)]:
            yield from (f"{path.relative_to(book)}: {finding}" for path, finding in found.result())


def of_one(waiting: Iterator[Path], axe: str, bar: tqdm) -> list[tuple[Path, str]]:
    """Findings of one browser in the pages that it takes from those that wait."""
    found: list[tuple[Path, str]] = []
    with fresh_page() as browser:
        for path in waiting:
            found += ((path, finding) for finding in findings(browser, path, axe))
            bar.update()
    return found


def check(book: Path) -> list[str]:
    """All findings, and a word on what could not be checked."""
    found = list(without_browser(book))
    axe = axe_source()
    if program() is None or axe is None:
        missing = "Chromium" if axe else "axe-core-python"
        print(f"{missing} is not here: contrast, names, overflow and scripts go unchecked")
        return found
    return found + list(in_browser(book, axe))


def main(arguments: list[str] | None = None) -> int:
    """Print findings; 1 if there are any, 0 otherwise."""
    parser = argparse.ArgumentParser(prog="python -m eval.gates", description=__doc__)
    parser.add_argument("book", type=Path, help="folder of a rendered book, such as _build/html")
    book = parser.parse_args(arguments).book
    if not (book / FIRST).is_file():
        print(f"{book} holds no rendered book: {FIRST} is missing; run `make book`.")
        return 2
    found = check(book)
    print("\n".join(found) or f"{len(pages(book))} pages pass")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
