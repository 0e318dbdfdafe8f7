"""The printed book: every chapter, own anchors, nothing folded, nothing wider than the paper."""

from pathlib import Path

import pytest
from bs4 import BeautifulSoup

from eval import browser
from eval.pages import printed
from medil.errors import InputError

ROOT = Path(__file__).parents[2]
NAMES = ["book/intro", "notebooks/00_start"]
PAGE = """<!DOCTYPE html><html><head><title>Book</title>
<link rel="stylesheet" href="../_static/print.css"></head><body>
<nav>away</nav><article class="bd-article">{body}</article><footer>away</footer></body></html>"""
INTRO = """<h1 id="top">First page</h1><p id="printed"></p>
<p><a href="../notebooks/00_start.html#check">go</a> <a href="api.html">out</a>
<a href="https://example.org">far</a> <a href="#top">up</a></p><script>live()</script>"""
CHAPTER = """<h1>1. <span>Second</span></h1><img src="../_images/a.png" alt="">
<h2 id="check">Check</h2>
<details class="hide"><summary><p class="collapsed">The drawing</p><p>Hide</p></summary>
<pre>draw()</pre></details>
<details><summary>Answer</summary><p>Forty-two.</p>
<details><summary>More</summary>deep</details></details>
<p>Text after.</p><svg><style>a {}</style></svg>"""


@pytest.fixture
def book(tmp_path) -> Path:
    for name, body in zip(NAMES, (INTRO, CHAPTER), strict=True):
        path = tmp_path / f"{name}.html"
        path.parent.mkdir()
        path.write_text(PAGE.format(body=body), "utf-8")
    (tmp_path / "_static").mkdir()
    style = (ROOT / "book/_static/print.css").read_text("utf-8")
    (tmp_path / "_static/print.css").write_text(style, "utf-8")
    return tmp_path


@pytest.fixture
def page(book) -> BeautifulSoup:
    return BeautifulSoup(printed.joined(book, NAMES), "html.parser")


def test_chapters_stand_in_reading_order_without_the_interface():
    names = printed.chapters(ROOT / "book/_toc.yml")
    assert names[:2] == ["book/intro", "notebooks/00_start"]
    assert "book/api" not in names and names[-1] == "CHANGELOG"


def test_the_joined_page_has_a_contents_and_every_chapter_s_text_alone(page):
    articles = page.select("article")
    assert [a.get("id") for a in articles] == ["intro--", None, "00_start--"]
    assert [a.get_text() for a in articles[1].select("a")] == ["1. Second"]
    assert "away" not in page.get_text() and not page.select("script, nav")
    assert page.select_one("svg style")


def test_links_lead_within_the_paper_or_nowhere(page):
    links = {a.get_text(): a.get("href") for a in page.select("article a")}
    assert links["go"] == "#00_start--check" and page.select_one("[id='00_start--check']")
    assert links["up"] == "#intro--top"
    assert links["far"] == "https://example.org"
    assert links["out"] is None
    assert page.select_one("img")["src"] == "_images/a.png"


def test_what_is_folded_stands_at_the_end_of_its_chapter(page):
    chapter = page.select_one("[id='00_start--']")
    assert [a.get_text() for a in chapter.select("a.unfolds")] == ["The drawing [1]", "Answer [2]"]
    end = chapter.select_one(".unfolded")
    assert chapter.find_all(recursive=False)[-1] is end
    assert [h.get_text() for h in end.select("h3")] == ["[1] The drawing", "[2] Answer"]
    assert "draw()" in end.get_text() and "Forty-two." in end.get_text()
    assert [d.get("open") for d in page.select("details")] == [""]
    for link in chapter.select("a.unfolds"):
        assert page.select_one(f"[id='{link['href'][1:]}']")


def test_a_page_that_is_missing_is_one_sentence(book):
    (book / "notebooks/00_start.html").unlink()
    with pytest.raises(InputError, match=r"00_start\.html is missing"):
        printed.joined(book, NAMES)


@pytest.mark.skipif(browser.program() is None, reason="Chromium is not installed")
def test_the_pdf_has_bookmarks_and_the_first_page_links_to_it(book):
    pypdf = pytest.importorskip("pypdf")
    path = printed.write(book, NAMES)
    reader = pypdf.PdfReader(path)
    marks = {m.title: reader.get_destination_page_number(m) for m in reader.outline}
    assert marks == {"First page": 0, "1. Second": 2}
    text = reader.pages[2].extract_text()
    assert "Forty-two." in text and "deep" in text
    assert '<a href="../medil-book.pdf">' in (book / "book/intro.html").read_text("utf-8")
    assert not (book / printed.JOINED).exists()


@pytest.mark.skipif(browser.program() is None, reason="Chromium is not installed")
def test_a_wide_table_is_made_to_fit_and_what_cannot_is_an_error(book):
    cells = "".join(f"<td>{'wide' * 4}{k}</td>" for k in range(40))
    chapter = book / "notebooks/00_start.html"
    chapter.write_text(PAGE.format(body=f"<h1>T</h1><table><tr>{cells}</tr></table>"), "utf-8")
    page = book / "joined.html"
    page.write_text(printed.joined(book, NAMES), "utf-8")
    assert b"".join(printed.printed(page)).startswith(b"%PDF")
    chapter.write_text(PAGE.format(body="<div style='width: 3000px'>far</div>"), "utf-8")
    page.write_text(printed.joined(book, NAMES), "utf-8")
    with pytest.raises(InputError, match="the paper would cut: div far"):
        b"".join(printed.printed(page))
