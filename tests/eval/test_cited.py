"""Numbers of the verdicts name the rows that they rest on, and a click shows them."""

from __future__ import annotations

import json
import re
from html import unescape
from pathlib import Path

import pandas as pd
import pytest

from eval import browser
from eval.cited import cited, marked, notes, plain
from eval.experiments import EXPERIMENTS
from eval.pages import explorer
from eval.tables import intervals_in

ROOT = Path(__file__).parents[2]
SPAN = re.compile(r'<span data-rows="([^"]*)">(.*?)</span>')
ABOUT = {"experiment": "speed", "command": "python -m eval.speed"}


def frame() -> pd.DataFrame:
    """Two heads, two arms, two metrics."""
    lines = [
        {"subject": subject, "arm": arm, "metric": metric, "condition": "1 -> 2", "value": 1.0,
         "recorded_at": pd.Timestamp("2026-01-01", tz="UTC"), "commit": "c" * 40, "dirty": False,
         "device": "cpu", "weights_sha256": "w" * 64 if arm == "medil" else ""}
        for subject in "ab" for arm in ("medil", "dct_ball") for metric in ("psnr", "ssim")
    ]  # fmt: skip
    return pd.DataFrame(lines)


def rows_in(line: str) -> list[tuple[str, dict]]:
    return [(text, json.loads(unescape(data))) for data, text in SPAN.findall(line)]


def test_a_cited_number_stays_plain_text_and_is_noted_only_where_somebody_listens():
    assert cited("1.5 [1, 2]", arm="medil") == "1.5 [1, 2]"
    with notes(frame()) as noted:
        assert cited("1.5 [1, 2]", arm="medil", metric="psnr") == "1.5 [1, 2]"
        assert cited("7", arm="nobody") == "7"
    (note,) = noted
    assert (note.arms, note.metrics, note.n_subjects, note.n_rows) == (("medil",), ("psnr",), 2, 2)
    assert (note.commit, note.weights, note.recorded) == ("ccccccc", "w" * 12, "2026-01-01")


def test_equal_numbers_are_marked_in_the_order_of_their_notes_and_parts_of_numbers_never():
    with notes(frame()) as noted:
        cited("1.0", arm="medil")
        cited("1.0", arm="dct_ball")
    (line,) = marked(["11.0 and 1.05 are others; 1.0, then 1.0."], noted, ABOUT)
    assert [rows["arms"] for _, rows in rows_in(line)] == [["medil"], ["dct_ball"]]
    assert line.startswith("11.0 and 1.05 are others; <span")
    assert plain(line) == "11.0 and 1.05 are others; 1.0, then 1.0."


@pytest.mark.slow
@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda e: e.name)
def test_every_interval_of_an_answer_names_rows_that_are_recorded(experiment):
    rows = experiment.recorded()
    if rows is None:
        pytest.skip("not recorded")
    answers, lines = experiment.answers(rows), experiment.marked_answers(rows)
    assert [plain(line) for line in lines] == answers
    n_intervals = sum(intervals_in(line) for line in answers)
    resolved = [entry for line in lines for entry in rows_in(line)]
    assert sum(intervals_in(text) for text, _ in resolved) == n_intervals
    for text, about in resolved:
        here = rows
        fields = {"metric": "metrics", "condition": "conditions", "arm": "arms"}
        for column, name in fields.items():
            assert set(about[name]) <= set(rows[column]), (text, name)
            here = here[here[column].isin(about[name])]
        assert 0 < about["n_rows"] <= len(here) and about["command"] == experiment.command


@pytest.fixture
def page(tmp_path):
    if browser.program() is None:
        pytest.skip("needs Chromium")
    for part in ("notebooks", "_static"):
        (tmp_path / part).mkdir()
    for name in ("cited.js", "medil.css"):
        (tmp_path / "_static" / name).symlink_to(ROOT / "book/_static" / name)
    with notes(frame()) as noted:
        text = f"A gain of {cited('1.5 [1, 2]', arm='medil', metric='psnr')} dB."
    (line,) = marked([text], noted, ABOUT)
    head = (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>cited</title>'
        '<link rel="stylesheet" href="../_static/medil.css"><script src="../_static/cited.js">'
    )
    (tmp_path / "notebooks/page.html").write_text(f"{head}</script><p>{line}</p>", "utf-8")
    with browser.page() as page:
        page.size(360, 800)
        page.open((tmp_path / "notebooks/page.html").as_uri())
        yield page


def test_a_key_opens_the_rows_of_a_number_and_another_closes_them(page):
    assert page.evaluate("document.querySelector('p').textContent") == "A gain of 1.5 [1, 2] dB."
    page.press("Tab", 9)
    assert page.evaluate("document.activeElement.textContent") == "1.5 [1, 2]"
    page.evaluate("document.activeElement.click()")
    shown = "document.querySelector('.medil-rows').matches(':popover-open')"
    assert page.evaluate(shown)
    text = page.evaluate("document.querySelector('.medil-rows').textContent")
    assert "n = 2 subjects" in text and "python -m eval.speed" in text and "ccccccc" in text
    link = page.evaluate("document.querySelector('.medil-rows a').href")
    assert link.endswith(
        "/notebooks/09_results.html" + explorer.link("speed", "psnr", "1 -> 2", ["medil"])
    )
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.press("Escape", 27)
    assert not page.evaluate(shown)
    assert page.problems == []
