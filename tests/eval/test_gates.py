"""Gates of the rendered book: what each kind of flaw looks like, and that good pages pass."""

import pytest

from eval import browser
from eval.gates import __main__ as gates
from eval.gates import links
from eval.gates.browser import axe_source, findings

HEAD = '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>A page</title>'
SIZED = '<meta name="viewport" content="width=device-width">'
GOOD = "<main><h1 id='top'>A brain</h1><p><a href='#top'>Up</a></p></main>"


def written(folder, body, name="book/intro.html", head=HEAD + SIZED):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{head}</head><body>{body}</body></html>", "utf-8")
    return path


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("<a href='nowhere.html'>x</a>", "nothing is at nowhere.html"),
        ("<a href='#nowhere'>x</a>", "no anchor at #nowhere"),
        ("<img src='data:image/png;base64,AA'>", "an image without alt text"),
    ],
)
def test_a_flaw_in_the_links_is_named(tmp_path, body, said):
    (finding,) = links.dead_links(written(tmp_path, body))
    assert said in finding


def test_good_links_and_other_hosts_links_pass(tmp_path):
    written(tmp_path, "<h2 id='a b'>x</h2>", "book/other.html")
    body = GOOD + "<a href='other.html#a%20b'>x</a><a href='https://example.org/'>y</a>"
    assert list(links.dead_links(written(tmp_path, body))) == []


def test_what_another_host_would_send_is_named(tmp_path):
    page = written(tmp_path, "<script src='https://example.org/x.js'></script>")
    assert list(links.foreign_loads(page)) == ["loads https://example.org/x.js"]


def test_a_first_visit_weighs_the_page_its_files_and_its_frames_once(tmp_path):
    (tmp_path / "a.js").write_bytes(b" " * 1000)
    frame = written(tmp_path, "<script src='a.js'></script>", "frame.html")
    body = "<script src='../a.js'></script><iframe src='../frame.html'></iframe>"
    body += "<img src='../late.png' loading='lazy' alt=''>"
    (tmp_path / "late.png").write_bytes(b" " * 5000)
    page = written(tmp_path, body)
    assert links.weight_bytes(page) == sum(p.stat().st_size for p in (page, frame)) + 1000


def test_a_heavy_first_visit_is_a_finding(tmp_path, monkeypatch):
    written(tmp_path, GOOD)
    monkeypatch.setattr(gates, "FIRST_VISIT_BYTES", 10)
    (finding,) = gates.without_browser(tmp_path)
    assert "a first visit loads" in finding


def test_a_folder_without_a_book_is_refused_in_one_sentence(tmp_path, capsys):
    assert gates.main([str(tmp_path)]) == 2
    assert "run `make book`" in capsys.readouterr().out


def test_without_a_browser_it_says_so_and_checks_the_rest(tmp_path, monkeypatch, capsys):
    written(tmp_path, "<a href='nowhere.html'>x</a>")
    monkeypatch.setattr(gates, "program", lambda: None)
    assert gates.main([str(tmp_path)]) == 1
    said = capsys.readouterr().out
    assert "Chromium is not here" in said and "nothing is at nowhere.html" in said


@pytest.fixture(scope="module")
def open_browser():
    if browser.program() is None or axe_source() is None:
        pytest.skip("Chromium or axe-core-python is not installed")
    with browser.page() as page:
        yield page


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (GOOD, ""),
        (GOOD.replace("</main>", "<div style='width:600px'>wide</div></main>"), "than 360: div."),
        ("<script>console.error('lost')</script>" + GOOD, "console: lost"),
        (GOOD + "<script src='missing.js'></script>", "console: "),
        (GOOD.replace("<p>", "<p style='color:#aaa'>faint "), "color-contrast"),
        (GOOD.replace("</main>", "<button></button></main>"), "button-name"),
    ],
)
def test_a_browser_finds(tmp_path, open_browser, body, said):
    found = findings(open_browser, written(tmp_path, body), axe_source())
    if not said:
        assert found == []
    assert all(said in finding for finding in found) and bool(found) == bool(said)
