"""The live picture: the browser renders what Python's `decode` gives, from a block that fits."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from eval import browser
from eval.pictures import live
from eval.speed import live as speed
from medil.grid import Grid
from medil.layers.operators import resample_cubic
from medil.model.weights import load_release, short_digest, weights_sha256
from tests.fragments import opened

pytest.importorskip("nilearn")

ROOT = Path(__file__).parents[2]
LEVEL = 1 / 255
MOUNTED = """new Promise((done) => {
  const wait = () => Medil.live.viewers.length ? done(true) : setTimeout(wait, 20);
  wait();
})"""
NUMBERS = """(() => {{
  const bytes = new Uint8Array({array}.buffer);
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(byte);
  return btoa(text);
}})()"""


@pytest.fixture(scope="module")
def model():
    return load_release("tiny")


@pytest.fixture(scope="module")
def block(model) -> live.Block:
    return live.encode_block(model)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The fragment that the pages include."""
    with opened(tmp_path_factory.mktemp("site"), "live") as page:
        assert page.evaluate(MOUNTED)
        yield page


def show(page: browser.Page, **state) -> None:
    page.evaluate(f"""(() => {{
      const viewer = Medil.live.viewers[0];
      Object.assign(viewer.state, {json.dumps(state)});
      viewer.refresh();
    }})()""")


def shown(page: browser.Page, name: str) -> np.ndarray:
    """[n, 1, n] of the arrays behind the canvas."""
    script = NUMBERS.format(array=f"Medil.live.viewers[0].shown.{name}")
    numbers = np.frombuffer(base64.b64decode(page.evaluate(script)), "<f4")
    n = round(len(numbers) ** 0.5)
    return numbers.reshape(n, 1, n)


def decoded(model, block: live.Block, grid: Grid) -> np.ndarray:
    """What Python gives, on the model's scale of 0 to 1."""
    volume = model.decode(block.latent, grid, precision="float32")
    return block.latent.intensity.forward(volume.data).numpy()


def test_the_block_is_what_the_released_decoder_gives(model, block):
    content = live.read_script(ROOT / live.FOLDER / "block.js")
    assert content["weights"] == short_digest(weights_sha256(model))
    assert content["notice"] == live.NOTICE
    fresh = json.loads(live.as_script(model, block).split("block = ")[1].rstrip().rstrip(";"))
    for name, most_steps in (("learned", 1), ("splines", 2), ("scan", 0)):
        stored, made = live.unpack(content[name]), live.unpack(fresh[name])
        assert np.abs(stored.astype(int) - made).max() <= most_steps, name
        np.testing.assert_allclose(content[name]["steps"], fresh[name]["steps"], rtol=1e-4)
    assert (ROOT / live.FOLDER / "block.js").stat().st_size < 700_000


@pytest.mark.parametrize(("voxel", "slice_mm"), [(5.0, 0.0), (1.0, 2.5), (0.4, -3.0)])
def test_the_browser_renders_what_decode_gives(model, block, page, voxel, slice_mm):
    show(page, voxel=voxel, slice=slice_mm, tilt=0, shifted=False, error=False)
    expected = decoded(model, block, block.plane(voxel, slice_mm))
    assert np.abs(shown(page, "values") - expected).max() < LEVEL


@pytest.mark.parametrize(("voxel", "tilt"), [(1.0, 12), (2.0, -7)])
def test_turned_voxels_are_those_of_an_oblique_grid(model, block, page, voxel, tilt):
    show(page, voxel=voxel, slice=1, tilt=tilt, shifted=False, error=False)
    values, grid = shown(page, "values"), block.plane(voxel, 1, tilt)
    for first in (0, len(values) // 2):  # a corner, which lies outside the block, and the middle
        part = grid.crop((first, 0, first), (6, 1, 6))
        here = values[first : first + 6, :, first : first + 6]
        assert np.abs(here - decoded(model, block, part)).max() < LEVEL
    assert values[0, 0, 0] == 0


@pytest.mark.parametrize("shifted", [False, True])
def test_the_error_is_the_rendering_minus_the_scan(model, block, page, shifted):
    show(page, voxel=1.5, slice=0, tilt=0, shifted=shifted, error=True)
    grid = block.plane(1.5)
    there = grid.shifted((0.75, 0, 0.75)) if shifted else grid
    scan = torch.from_numpy(block.scan.values)[None]
    truth = resample_cubic(scan, block.volume.grid, there)[0, 0].numpy()
    error, expected = shown(page, "error"), decoded(model, block, grid) - truth
    known = np.isfinite(error)
    assert known.sum() >= 52 * 52
    assert np.abs(error - expected)[known].max() < LEVEL
    rms = page.evaluate("Medil.live.viewers[0].shown.rms")
    assert rms == pytest.approx(np.sqrt((expected[known] ** 2).mean()), rel=0.02)


def test_half_a_voxel_costs_more_than_the_code_and_more_for_larger_voxels(page):
    rms = {}
    for voxel in (1, 3):
        for shifted in (False, True):
            show(page, voxel=voxel, slice=0, tilt=0, shifted=shifted, error=True)
            rms[voxel, shifted] = page.evaluate("Medil.live.viewers[0].shown.rms")
    assert rms[1, True] > 2 * rms[1, False]
    assert rms[3, True] > max(rms[1, True], 2 * rms[3, False])


def test_the_canvas_shows_the_values(model, block, page):
    show(page, voxel=2, slice=0, tilt=0, shifted=False, error=False)
    pixels = page.evaluate("""Array.from(Medil.live.viewers[0].canvas.getContext("2d")
      .getImageData(0, 0, 480, 480).data.filter((_, n) => n % 4 === 0))""")
    grey = np.array(pixels).reshape(480, 480)[::-1].T[6::12, 6::12]  # a voxel is 12 pixels
    low, high = block.window
    expected = 255 * (decoded(model, block, block.plane(2))[:, 0] - low) / (high - low)
    assert np.abs(grey - expected.clip(0, 255)).max() <= 2


def test_keys_move_the_sliders_and_each_control_has_a_name(page):
    show(page, voxel=1.5, slice=0, tilt=0, shifted=False, error=False)
    page.evaluate("document.querySelector('input[type=range]').focus()")
    page.press("ArrowRight", 39)
    frame = "new Promise((done) => requestAnimationFrame(() => setTimeout(done, 50)))"
    page.evaluate(frame)
    assert page.evaluate("Medil.live.viewers[0].shown.plane.voxel") == 1.6
    assert page.evaluate("document.querySelector('[role=status]').textContent") == (
        "50 × 50 voxels of 1.6 mm."
    )
    named = "[...document.querySelectorAll('input')].every((input) => input.labels.length === 1)"
    assert page.evaluate(named)


def test_frames_are_counted_by_the_clock_and_by_cpu_time(page):
    by_clock, of_cpu = speed.frames_per_s(page, {"tilt": 0, "error": False})
    assert page.evaluate("Medil.live.viewers[0].shown.plane.count") == 200
    assert by_clock > 0 and of_cpu > 20


def test_the_page_asks_nobody_and_fits_a_phone(page):
    page.size(360, 800)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.problems == []
