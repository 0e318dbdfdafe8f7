"""The failure clinic: readings name each fault; the page asks, counts and unfolds."""

from __future__ import annotations

import re
from pathlib import Path
from pkgutil import resolve_name

import numpy as np
import pytest
from scipy import ndimage

from eval import browser
from eval.faults import clinic
from eval.faults.answers import FAILURES, READINGS, told
from eval.faults.distortions import Block
from eval.pages import failures
from medil.grid import Grid

ROOT = Path(__file__).parents[2]
SHAPE = (66, 69, 36)


@pytest.fixture(scope="module")
def block() -> Block:
    """Sharp-edged blobs with a fine texture, darker at one end; other blobs for false folds."""
    rng = np.random.default_rng(5)

    def blobs() -> np.ndarray:
        coarse = ndimage.gaussian_filter(rng.standard_normal(SHAPE), 4)
        fine = ndimage.gaussian_filter(rng.standard_normal(SHAPE), 0.6)
        return 0.35 + 0.5 * (coarse > 0) + 0.05 * fine

    mask = np.zeros(SHAPE, bool)
    mask[5:-5, 5:-5, 5:-5] = True
    darker = np.where(np.arange(SHAPE[0]) < 40, 1.0, 0.7)[:, None, None]
    elsewhere = blobs()
    elsewhere -= ndimage.gaussian_filter(elsewhere, 3)
    grid = Grid.from_spacing(SHAPE, (1.0, 1.0, 1.0), (-30.0, 4.0, 7.5))
    return Block(darker * blobs(), mask, grid, 1.0, elsewhere)


@pytest.fixture(scope="module")
def pictures(block) -> dict[str, np.ndarray]:
    return {name: make(block) for name, make in clinic.MAKE.items()}


@pytest.fixture(scope="module")
def measured(block, pictures) -> dict[str, clinic.Signs]:
    return {name: clinic.signs(block, picture) for name, picture in pictures.items()}


@pytest.fixture(scope="module")
def page(block, pictures, measured, tmp_path_factory):
    if browser.program() is None:
        pytest.skip("needs Chromium")
    site = tmp_path_factory.mktemp("site")
    (site / "book").mkdir()
    (site / "interactive").symlink_to(ROOT / "book/interactive")
    head = '<!doctype html><html lang="en"><meta charset="utf-8"><title>clinic</title>'
    body = failures.cards(block, pictures, measured)
    (site / "book/page.html").write_text(head + body, "utf-8")
    with browser.page() as page:
        page.open((site / "book/page.html").as_uri())
        yield page


@pytest.mark.parametrize("fault", clinic.MAKE)
def test_the_rule_names_each_fault_from_its_readings(measured, fault):
    assert clinic.diagnose(measured[fault]) == fault, measured[fault]


def test_every_fault_has_a_step_an_answer_and_a_reading():
    assert {step.fault for step in clinic.RULE} == set(FAILURES) == set(clinic.MAKE)
    assert set(clinic.Signs.__annotations__) == set(READINGS)


def test_a_shift_and_a_stretch_are_measured_in_mm_along_each_axis(block):
    half, none = clinic.misplaced(block, clinic.half_a_voxel(block))
    assert half == pytest.approx([0.5, 0.5, 0.5], abs=0.05)
    assert none == pytest.approx([0, 0, 0], abs=0.005)
    _, stretch = clinic.misplaced(block, clinic.wrong_voxel_size(block))
    assert stretch == pytest.approx([0, clinic.STRETCH, 0], abs=0.01)


def test_a_gain_and_an_offset_are_no_shift(block):
    shift_mm, stretch = clinic.misplaced(block, 1.3 * block.truth - 0.2)
    assert np.abs([*shift_mm, *stretch]).max() < 1e-9


def test_white_noise_has_as_much_power_at_all_waves(block, measured):
    assert measured["noise"].grain == pytest.approx(1, abs=0.1)
    assert clinic.grain(block, block.truth) == 0


def test_the_next_of_the_rest_is_among_those_not_yet_named(measured):
    flip, last = clinic.RULE[2], clinic.RULE[-1]
    rest = set(measured) - {"scan", "window", "flip"}
    assert clinic.nearest(flip, measured) == max(measured[name].mirrored for name in rest)
    assert np.isnan(clinic.nearest(last, measured))


def test_tests_and_cures_name_what_there_is():
    text = " ".join(f"{one.test} {one.cure}" for one in FAILURES.values())
    for name in re.findall(r"<code>((?:medil|eval)\.[\w.]+)</code>", text):
        assert callable(resolve_name(name)), name
    for address in re.findall(r'href="\.\./([\w/]+)\.html"', text):
        assert list(ROOT.glob(f"{address}.*")), address


def test_numbers_are_told_with_their_units():
    assert told("stretch", -0.0567) == "−5.7 %"
    assert told("psnr_db", float("inf")) == "∞ dB"
    assert told("shading", float("nan")) == "none"


def test_without_a_script_each_picture_has_its_answer(block, pictures, measured):
    text = failures.cards(block, pictures, measured)
    assert text.count("<summary>Answer to picture") == len(clinic.MAKE)
    for fault in clinic.MAKE:
        assert "{" not in failures.answer(FAILURES[fault], measured[fault])
    alts = re.findall(r'alt="([^"]+)"', text)
    assert len(alts) == 1 + 2 * len(clinic.MAKE)
    words = {one.title for one in FAILURES.values()} - {"noise"}
    assert not any(word in alt for alt in alts for word in words)  # an alt text gives nothing away


def test_the_table_has_a_line_a_step(measured):
    assert failures.rule_table(measured).count("\n") == len(clinic.RULE) + 1


def test_an_answer_by_keyboard_counts_and_unfolds(page):
    for number, right in ((1, True), (2, False)):
        page.evaluate(f"""(() => {{
          const card = document.querySelectorAll(".medil-card")[{number - 1}];
          const choice = card.querySelector("select"), other = [...choice.options].slice(1)
            .find((option) => (option.value === card.dataset.fault) === {str(right).lower()});
          choice.value = other.value;
          card.querySelector("button").focus();
        }})()""")
        page.call("Input.dispatchKeyEvent", type="keyDown", key="Enter", code="Enter",
                  windowsVirtualKeyCode=13, text="\r")  # fmt: skip
    told = page.evaluate("[...document.querySelectorAll('[role=status]')].map(p => p.textContent)")
    assert told[0].startswith("Right: ") and told[0].endswith("1 of 1 so far.")
    assert told[1].startswith("No: ") and told[1].endswith("1 of 2 so far.")
    opened = "[...document.querySelectorAll('.medil-card-answer')].map((d) => d.open)"
    assert page.evaluate(opened) == [True, True] + [False] * 10


def test_the_page_asks_nobody_and_fits_a_phone(page):
    page.size(360, 800)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.problems == []
