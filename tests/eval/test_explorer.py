"""The results explorer says in the browser what Python computes from the rows, and stays small."""

from __future__ import annotations

import csv
import gzip
import io
import json

import numpy as np
import pandas as pd
import pytest

from eval import browser
from eval.experiment import Experiment
from eval.experiments import EXPERIMENTS
from eval.pages import explorer
from eval.pages.results import Recorded, explore
from eval.pairs import Scores
from eval.rows import RESULTS
from eval.tables import means
from tests.fragments import INTERACTIVE

MOST_BYTES = 400_000  # compressed, scripts and rows of all experiments
READY = "Medil.explorer.ready"
SHOWN = """[...document.querySelectorAll(".forest tbody tr")].map((line) =>
  [...line.children].filter((_, n) => n !== 1).map((cell) => cell.textContent))"""


def named(name: str) -> Experiment:
    return next(e for e in EXPERIMENTS if e.name == name)


def seeded() -> pd.DataFrame:
    """Made-up rows of three arms, five subjects and two seeds; one row is missing."""
    rng = np.random.default_rng(0)
    lines = [
        {"arm": arm, "subject": f"sub-{n}", "seed": seed, "value": rng.normal(25, 2)}
        for arm in ("integrated", "trilinear", "liif") for n in (3, 1, 0, 2, 4) for seed in (0, 1)
    ]  # fmt: skip
    same = {"experiment": "ablation", "metric": "psnr", "condition": "1 mm", "unit": "dB",
            "recorded_at": pd.Timestamp("2026-01-01", tz="UTC"), "commit": "c" * 40,
            "dirty": False, "device": "cpu", "weights_sha256": "w" * 64}  # fmt: skip
    return pd.DataFrame(lines[:-1]).assign(**same)


@pytest.fixture(scope="module")
def frames():
    """Prepared rows of experiments without seeds and of one with seeds."""
    recorded = {name: named(name).recorded() for name in ("reconstruction", "training")}
    return recorded | {"ablation": seeded()}


@pytest.fixture(scope="module")
def page(frames, tmp_path_factory):
    if browser.program() is None:
        pytest.skip("needs Chromium")
    site = tmp_path_factory.mktemp("site")
    folder = site / "rows" / explorer.FOLDER
    for part in (folder, site / "notebooks"):
        part.mkdir(parents=True)
    for name, frame in frames.items():
        text = explorer.as_script(explorer.content(named(name), frame))
        (folder / f"{name}.js").write_text(text, "utf-8")
    (site / "interactive").symlink_to(INTERACTIVE)
    body = explorer.fragment([named(name) for name in frames], "<p>still</p>", "../rows/explorer")
    head = '<!doctype html><html lang="en"><meta charset="utf-8"><title>results</title>'
    (site / "notebooks/page.html").write_text(head + body, "utf-8")
    with browser.page() as page:
        page.open((site / "notebooks/page.html").as_uri())
        page.evaluate(READY)
        yield page


def show(page: browser.Page, **wanted) -> list[list[str]]:
    """Lines of the forest plot: arm, mean with interval, n."""
    page.evaluate(f"Medil.explorer.choose({json.dumps(wanted)})")
    return page.evaluate(SHOWN)


def said(mean: float, low: float, high: float) -> str:
    """A mean and its interval, as the page writes them."""
    values = [explorer._text(v).replace("-", "−") for v in (mean, low, high)]
    return "{} [{}, {}]".format(*values)


def test_means_and_intervals_are_those_of_the_tables(page, frames):
    frame = frames["reconstruction"]
    for metric, condition in (("psnr", "native -> native"), ("hfen", "native -> 2 mm")):
        chosen = frame[(frame["metric"] == metric) & (frame["condition"] == condition)]
        expected = {
            explorer.arm_title(named("reconstruction"), line.arm): [
                said(line.mean, line.low, line.high), str(line.n),
            ]
            for line in means(chosen, ["arm"]).itertuples() if line.n > 1
        }  # fmt: skip
        assert len(expected) > 3
        lines = show(page, experiment="reconstruction", metric=metric, condition=condition,
                     arms=list(chosen["arm"].unique()))  # fmt: skip
        assert {title: rest for title, *rest in lines if title in expected} == expected


def test_subjects_and_seeds_are_crossed_as_in_the_ablation(page, frames):
    scores = Scores(frames["ablation"], ["arm", "condition"])
    expected = {}
    for arm, condition in scores.keys:
        level = scores.level(arm, condition)
        text = said(level.mean, level.low, level.high)
        title = explorer.arm_title(named("ablation"), arm)
        expected[title] = [text, str(level.n_subjects)]
    lines = show(page, experiment="ablation", metric="psnr", condition="1 mm", arms=None)
    assert {title: rest for title, *rest in lines} == expected
    assert expected["LIIF"][1] == "4"  # the one without its second seed does not count


def test_the_file_that_is_taken_away_holds_the_rows_of_the_selection(page, frames):
    frame = frames["reconstruction"]
    arms = ["dct_ball", "bspline"]
    show(page, experiment="reconstruction", metric="psnr", condition="native -> native", arms=arms)
    text = page.evaluate("fetch(Medil.explorer.address).then((answer) => answer.text())")
    lines = list(csv.DictReader(io.StringIO(text)))
    chosen = frame[
        (frame["metric"] == "psnr") & (frame["condition"] == "native -> native")
        & frame["arm"].isin(arms)
    ]  # fmt: skip
    assert len(lines) == len(chosen.dropna(subset="value"))
    np.testing.assert_allclose(
        sorted(float(line["value"]) for line in lines), sorted(chosen["value"]), rtol=1e-3
    )
    commits = {commit.rstrip("+") for line in lines for commit in line["commit"].split(", ")}
    assert commits == set(chosen["commit"].str[:7])


def test_an_address_leads_to_its_selection_and_follows_the_choice(page):
    show(page, experiment="ablation", metric="psnr")
    link = explorer.link("reconstruction", "ssim", "native -> native", ["dct_ball", "bspline"])
    assert link.startswith("#explorer?")
    page.evaluate(f"Medil.explorer.show(Medil.store.fromLink({link!r}))")
    selection = page.evaluate("Medil.explorer.selection")
    assert selection == {
        "experiment": "reconstruction", "metric": "ssim", "condition": "native -> native",
        "arms": ["dct_ball", "bspline"],
    }  # fmt: skip
    assert page.evaluate("Medil.store.asLink(Medil.explorer.selection)") == link
    show(page, arms=["bspline"])
    assert page.evaluate("location.hash") == explorer.link(
        "reconstruction", "ssim", "native -> native", ["bspline"]
    )


def test_what_nobody_recorded_gives_the_nearest_selection(page):
    show(page, experiment="no such", metric="no such", condition="no such", arms=["no such"])
    selection = page.evaluate("Medil.explorer.selection")
    assert selection["experiment"] == "reconstruction" and selection["metric"] == "psnr"
    assert selection["arms"]


def test_keys_choose_and_every_control_has_a_name(page):
    show(page, experiment="reconstruction", metric="psnr", condition="native -> native")
    page.evaluate("document.querySelector('#medil-explorer-metric').focus()")
    page.press("ArrowDown", 40)
    wait = "new Promise((done) => setTimeout(() => done(Medil.explorer.selection.metric), 200))"
    assert page.evaluate(wait) == "ssim"
    assert page.evaluate("document.activeElement.id") == "medil-explorer-metric"
    assert page.evaluate(
        "[...document.querySelectorAll('select, input')].every((one) => one.labels.length === 1)"
    )
    page.evaluate("document.querySelector('fieldset button:nth-of-type(2)').click()")
    assert page.evaluate("document.querySelector('[role=status]').textContent") == (
        "Nothing is chosen."
    )
    page.evaluate("document.querySelector('fieldset input').click()")
    assert len(page.evaluate(SHOWN)) == 1


def test_few_arms_are_shown_under_every_condition(page):
    lines = show(page, experiment="training", metric="", condition="", arms=None)
    assert page.evaluate("Medil.explorer.selection.condition") == "*"
    assert len(lines) == 40
    assert "40 lines are drawn" in page.evaluate(
        "document.querySelector('[role=status]').textContent"
    )


def test_the_page_asks_nobody_and_fits_a_phone(page):
    page.size(360, 800)
    for name in ("reconstruction", "ablation", "training"):
        show(page, experiment=name, metric="", condition="", arms=None)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, name
    assert page.problems == []


def test_a_still_table_stays_where_scripts_cannot_run(frames):
    text = explore([Recorded(named("reconstruction"), frames["reconstruction"])])
    assert "needs JavaScript" in text and "<caption>Reconstruction" in text
    assert "<p>No row" in explore([])


def test_a_number_is_whole_from_a_thousand_on():
    assert [explorer.shown(v) for v in (999.949, 1000.4, -0.0)] == [999.9, 1000.0, 0.0]
    assert explorer.shown(np.nan) is None


@pytest.mark.slow
def test_scripts_and_the_rows_of_all_experiments_stay_small(tmp_path):
    written = explorer.write_scripts(RESULTS, tmp_path)
    assert [path.stem for path in written] == [
        e.name for e in EXPERIMENTS if e.recorded() is not None
    ]
    scripts = [*written, *(INTERACTIVE / "explorer").iterdir()]
    assert sum(len(gzip.compress(path.read_bytes())) for path in scripts) < MOST_BYTES


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ablation", "extrapolation"])
def test_every_cell_with_seeds_is_that_of_the_tables(name):
    frame = named(name).recorded()
    scores = Scores(frame, ["arm", "condition", "metric"])
    made = [c for c in explorer.cells(frame) if len(c.seeds) > 1]
    assert made
    for cell in made[::50]:
        level = scores.level(cell.arm, cell.condition, cell.metric)
        assert (cell.mean, cell.low, cell.high, cell.n) == (
            level.mean, level.low, level.high, level.n_subjects,
        ), cell  # fmt: skip
