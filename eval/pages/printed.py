"""The rendered book as one PDF: every chapter in order, nothing folded, nothing cut.

    python -m eval.pages.printed _build/html

joins the chapters into one page, moves what is folded to the end of its chapter, and lets Chromium
print it with `book/_static/print.css`. The PDF lies beside the pages, and the first page links to
it. What a sheet cannot hold at full size is made smaller; what would still be cut is an error.
"""

from __future__ import annotations

import argparse
import base64
import logging
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from html import escape, unescape
from pathlib import Path
from urllib.parse import unquote

import yaml
from bs4 import BeautifulSoup, Tag

from eval import browser
from medil.errors import InputError, needs
from medil.system.files import atomic_output

ROOT = Path(__file__).resolve().parents[2]
NAME, JOINED = "medil-book.pdf", "joined.html"
FIRST = "book/intro"
LEFT_OUT = ("book/api",)  # 200 sheets that nobody reads in order
DEAD = "script, noscript, form, button, link, iframe, .headerlink"  # on paper
SHEET_MM = (210.0, 297.0)
MARGIN_MM = (18.0, 16.0)  # above and below; at the sides
PX_PER_MM = 96 / 25.4
WIDTH_PX = round((SHEET_MM[0] - 2 * MARGIN_MM[1]) * PX_PER_MM)  # of the text, on paper and here
LINK = '<a href="../{name}">The book as a PDF</a> ({size_mb:.0f} MB).'
PLACE = re.compile(r'(<p id="printed">).*?(</p>)', re.S)  # of the link, on the first page
FOOTER = (
    '<div style="font-size: 8px; width: 100%; text-align: center">'
    '<span class="pageNumber"></span></div>'
)
READY = """Promise.all([
  window.MathJax ? MathJax.startup.promise : 0, document.fonts.ready,
  ...[...document.images].map((image) => image.decode().catch(() => 0)),
]).then(() => document.querySelectorAll('img').forEach((image) => { image.loading = 'eager'; }))"""
FIT = """(() => {
  const width = %(width)d, cut = [];
  for (const e of document.querySelectorAll('table, pre, mjx-container, img, svg')) {
    const box = e.getBoundingClientRect(), wide = Math.max(e.scrollWidth || 0, box.width);
    if (box.left + wide > width + 1) e.style.zoom = 0.99 * (width - box.left) / wide;
  }
  for (const e of document.querySelectorAll('article *')) {
    const box = e.getBoundingClientRect();
    if (box.width && box.right > width + 2 && !e.closest('svg, mjx-assistive-mml'))
      cut.push(e.tagName.toLowerCase() + ' ' + e.textContent.trim().slice(0, 60));
  }
  return cut.slice(0, 5);
})()"""


def chapters(contents: Path) -> list[str]:
    """The pages of a table of contents in reading order, without suffixes and `LEFT_OUT`."""
    table = yaml.safe_load(contents.read_text("utf-8"))
    parts = [chapter["file"] for part in table["parts"] for chapter in part["chapters"]]
    return [name for name in (table["root"], *parts) if name not in LEFT_OUT]


def joined(book: Path, names: Iterable[str]) -> str:
    """One page with the chapters of a book; it belongs into the book's folder."""
    pages = {name: _read(book / f"{name}.html") for name in names}
    page = next(iter(pages.values()))
    articles = {name: chapter(page, name, pages) for name, page in pages.items()}
    first, *others = map(str, articles.values())
    body = "\n".join([first, _contents(articles), *others])
    styles = {str(link["href"])[3:] for link in page.select("link[rel=stylesheet]")}  # no ../
    head = "".join(f'<link rel="stylesheet" href="{style}">' for style in sorted(styles))
    for script in next((p.select("script") for p in pages.values() if _has_equations(p)), ()):
        source = str(script.get("src", "")).removeprefix("../")
        if "MathJax" in script.text or "mathjax" in source:
            head += f'<script src="{source}"></script>' if source else str(script)
    title = page.title.text if page.title else ""
    return (
        f'<!DOCTYPE html><html lang="en" data-theme="light" data-mode="light"><head>'
        f'<meta charset="utf-8"><title>{title}</title>{head}</head>'
        f'<body class="printed">{body}</body></html>'
    )


def chapter(page: BeautifulSoup, name: str, known: Iterable[str]) -> Tag:
    """The article of a page, ready to stand among others: own anchors, nothing folded or live."""
    article = page.select_one("article.bd-article")
    if article is None:
        raise InputError(f"{name}.html holds no article; build the book again.")
    for dead in article.select(DEAD):
        dead.decompose()
    _unfold(page, article)
    for tag in article.select("[id]"):
        tag["id"] = anchor(name, str(tag["id"]))
    for tag in article.select("[src]"):
        tag["src"] = _moved(name, str(tag["src"]))
        tag["loading"] = "eager"
    for link in article.select("a[href]"):
        if not (href := _within(name, str(link["href"]), set(known))):
            del link["href"]
        else:
            link["href"] = href
    article["id"] = anchor(name, "")
    return article


def _contents(articles: Mapping[str, Tag]) -> str:
    """A sheet that names the chapters after the first one, each a link."""
    lines = [
        f'<li><a href="#{anchor(name, "")}">{heading(article)}</a></li>'
        for name, article in list(articles.items())[1:]
    ]
    return f'<article class="contents"><h1>Contents</h1><ul>{"".join(lines)}</ul></article>'


def heading(article: Tag) -> str:
    """The heading of a chapter, as HTML text."""
    found = article.select_one("h1")
    return escape(" ".join(found.get_text().split())) if found else ""


def _unfold(page: BeautifulSoup, article: Tag) -> None:
    """Move what is folded to the end of the chapter, and leave its name as a link."""
    folded = [tag for tag in article.select("details") if tag.find_parent("details") is None]
    if not folded:
        return
    end = page.new_tag("section", attrs={"class": "unfolded"})
    heading = page.new_tag("h2")
    heading.string = "Unfolded"
    end.append(heading)
    for number, details in enumerate(folded, start=1):
        for inner in details.select("details"):
            inner["open"] = ""
        title = _title(details)
        link = page.new_tag("a", attrs={"href": f"#unfolded-{number}", "class": "unfolds"})
        link.string = f"{title} [{number}]"
        details.replace_with(link)
        name = page.new_tag("h3", attrs={"id": f"unfolded-{number}"})
        name.string = f"[{number}] {title}"
        details.name = "div"
        details.attrs = {"class": "unfolded-part"}
        details.insert(0, name)
        end.append(details)
    article.append(end)


def _title(details: Tag) -> str:
    """The name of what is folded; its summary is taken out."""
    summary = details.find("summary")
    if not isinstance(summary, Tag):
        return "Details"
    shown = summary.select_one(".collapsed") or summary
    title = " ".join(shown.get_text(" ").split())
    summary.decompose()
    return title or "Details"


def anchor(name: str, own: str) -> str:
    """An anchor of a chapter in the joined page.

    Example:
        >>> anchor("notebooks/00_start", "check")
        '00_start--check'
    """
    return f"{Path(name).name}--{own}"


def _within(name: str, href: str, known: set[str]) -> str:
    """Where a link of a chapter leads in the joined page; empty if to what is not printed."""
    if re.match(r"[a-z]+:", href):
        return href
    path, _, own = href.partition("#")
    target = name if not path else _moved(name, path).removesuffix(".html")
    return f"#{anchor(target, unquote(own))}" if target in known else ""


def _moved(name: str, path: str) -> str:
    """An address of a chapter, as seen from the book's folder."""
    if re.match(r"[a-z]+:", path):
        return path
    parts = [*Path(name).parent.parts]
    for step in path.split("/"):
        parts = parts[:-1] if step == ".." else [*parts, step]
    return "/".join(parts)


def _has_equations(page: BeautifulSoup) -> bool:
    return page.select_one(".math") is not None


def _read(path: Path) -> BeautifulSoup:
    if not path.is_file():
        raise InputError(f"{path} is missing; run `make book`.")
    return BeautifulSoup(path.read_text("utf-8"), "html.parser")


def printed(path: Path) -> Iterator[bytes]:
    """The PDF of a page, in pieces.

    Raises:
        InputError: Chromium is not installed, or a sheet would cut something.
    """
    with browser.page() as page:
        page.call("Emulation.setEmulatedMedia", media="print")
        page.size(WIDTH_PX, round(SHEET_MM[1] * PX_PER_MM))
        page.open(path.resolve().as_uri())
        page.evaluate(READY)
        if cut := page.evaluate(FIT % {"width": WIDTH_PX}):
            raise InputError(f"the paper would cut: {'; '.join(cut)}")
        top, side = (size / 25.4 for size in MARGIN_MM)
        stream = page.call(
            "Page.printToPDF", transferMode="ReturnAsStream", printBackground=True,
            paperWidth=SHEET_MM[0] / 25.4, paperHeight=SHEET_MM[1] / 25.4, marginTop=top,
            marginBottom=top, marginLeft=side, marginRight=side, displayHeaderFooter=True,
            headerTemplate="<span></span>", footerTemplate=FOOTER,
            generateTaggedPDF=True,
        )["stream"]  # fmt: skip
        while True:
            piece = page.call("IO.read", handle=stream, size=1 << 20)
            yield base64.b64decode(piece["data"])
            if piece["eof"]:
                return


def write(book: Path, names: Iterable[str]) -> Path:
    """Print a rendered book, and link its first page to the PDF; the PDF.

    Raises:
        InputError: As `joined` and `printed`.
    """
    page = book / JOINED
    try:
        page.write_text(joined(book, names), "utf-8")
        with atomic_output(book / NAME, force=True) as part:
            with part.open("wb") as file:
                file.writelines(printed(page))
            add_bookmarks(part, page.read_text("utf-8"))
    finally:
        page.unlink(missing_ok=True)
    first, target = book / f"{FIRST}.html", book / NAME
    link = LINK.format(name=NAME, size_mb=target.stat().st_size / 1e6)
    text = PLACE.sub(rf"\g<1>{link}\g<2>", first.read_text("utf-8"))
    with atomic_output(first, force=True) as part:
        part.write_text(text, "utf-8")
    return target


def add_bookmarks(pdf: Path, page: str) -> None:
    """Name the chapters of a printed page in the PDF; Chromium's own names repeat their words.

    Raises:
        InputError: pypdf is not installed.
    """
    with needs("book", "bookmarks need pypdf"):
        from pypdf import PdfReader, PdfWriter
    logging.getLogger("pypdf").setLevel(logging.ERROR)  # it counts Chromium's objects otherwise
    reader = PdfReader(pdf)
    writer = PdfWriter(clone_from=reader)
    for article in BeautifulSoup(page, "html.parser").select("article[id]"):
        place = reader.named_destinations.get(f"/{article['id']}")
        number = reader.get_destination_page_number(place) if place else 0
        writer.add_outline_item(title=unescape(heading(article)), page_number=number)
    writer.write(pdf)


def main(arguments: list[str] | None = None) -> int:
    """The command line; 0, or 2 and a sentence."""
    parser = argparse.ArgumentParser(prog="python -m eval.pages.printed", description=__doc__)
    parser.add_argument("book", type=Path, help="folder of a rendered book, such as _build/html")
    book = parser.parse_args(arguments).book
    try:
        print(write(book, chapters(ROOT / "book/_toc.yml")))
    except InputError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
