"""Check a rendered book."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from eval.browser import page as fresh_page
from eval.browser import program
from eval.gates.browser import axe_source, findings
from eval.gates.links import dead_links, foreign_loads, weight_bytes

FIRST = "book/intro.html"
FIRST_VISIT_BYTES = 1_500_000
THEIRS = ("genindex", "py-modindex", "search", "index")  # pages that the theme or Sphinx makes
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
    """Findings of a browser in a book."""
    with fresh_page() as browser:
        for path in tqdm(pages(book), desc="pages", unit="page", disable=None):
            for finding in findings(browser, path, axe):
                yield f"{path.relative_to(book)}: {finding}"


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
