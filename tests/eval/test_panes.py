"""The linked panes: NiiVue draws what was stored, at one place in mm, and a still picture else."""

from __future__ import annotations

import base64
import gzip
import hashlib
import lzma
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import torch

pytest.importorskip("doit")
import dodo
from eval import browser
from eval.pictures import panes
from eval.subjects import Scan
from medil.anatomy.classes import CLASSES, LabelMap
from medil.diffusion.appearance_training import load_appearance_release
from medil.errors import InputError
from medil.grid import Grid
from medil.model.weights import short_digest
from medil.volume import Volume

PACKED = dodo.ROOT / "book/interactive/panes"
GRID = Grid.from_spacing((8, 9, 7), (1.0, 1.5, 2.0), (-3.0, -20.5, 4.25))
VIEWER = "Medil.panes.viewers[0]"
LOADED = """new Promise((done) => {
  const wait = () => document.querySelector("[aria-busy]") ? setTimeout(wait, 50) : done(true);
  setTimeout(wait, 200);
})"""
PLACES = f"{VIEWER}.views.map((v) => [...v.frac2mm(v.scene.crosshairPos, 0, true)].slice(0, 3))"
COLOURS = """(() => {{
  const view = {viewer}.views[{n}], {{ gl }} = view, {{ width, height }} = gl.canvas;
  view.drawScene();
  const pixels = new Uint8Array(4 * width * height);
  gl.readPixels(0, 0, width, height, gl.RGBA, gl.UNSIGNED_BYTE, pixels);
  return [...new Set(new Uint32Array(pixels.buffer))].length;
}})()"""


def scene() -> panes.Scene:
    rng = np.random.default_rng(0)
    head = rng.uniform(10, 95, GRID.shape)
    alike = [head + rng.uniform(-15, 15, GRID.shape) for _ in range(3)]
    scan, medil, code = panes.on_levels(alike)
    four = (
        panes.Pane("Scan", scan), panes.Pane("MedIL", medil), panes.Pane("Cosines", code),
        panes.Pane("Error", medil - scan, signed=True),
    )  # fmt: skip
    return panes.Scene(
        "brain", four, GRID, GRID.centre_mm, "A cut.", "<em>Four</em> panes.", "A finding & a cut."
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """A page with the figure, and the folders beside it as `make book` leaves them."""
    site = tmp_path_factory.mktemp("site")
    shutil.copytree(PACKED, site / "interactive/panes")
    dodo.unpack_scripts(site)
    panes.write(scene(), site / "interactive/panes")
    (site / "book").mkdir()
    head = '<!doctype html><html lang="en"><meta charset="utf-8"><title>panes</title>'
    figure = (site / "interactive/panes/brain.html").read_text("utf-8")
    (site / "book/page.html").write_text(head + figure, "utf-8")
    return site


@pytest.fixture(scope="module")
def page(site):
    if browser.program() is None:
        pytest.skip("needs Chromium")
    with browser.page() as page:
        page.open((site / "book/page.html").as_uri())
        page.evaluate(LOADED)
        yield page


def values_at(mm) -> list[float]:
    index = tuple(np.rint(GRID.ras_to_index(mm)).astype(int))
    return [float(pane.data[index]) for pane in scene().panes]


def test_a_script_holds_each_pane_and_the_error_is_the_difference_of_two(site):
    content = panes.read_script(site / "interactive/panes/brain.js")
    stored = []
    for one in content["panes"]:
        image = nib.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(one["data"])))
        np.testing.assert_allclose(image.affine, GRID.affine_vox2ras, atol=1e-5)
        stored.append(image.get_fdata())
    for data, pane in zip(stored, scene().panes, strict=True):
        np.testing.assert_allclose(data, pane.data, atol=1e-4)
    np.testing.assert_allclose(stored[3], stored[1] - stored[0], atol=1e-4)


def test_the_facts_name_the_best_linear_code_and_where_the_error_is():
    rng = np.random.default_rng(1)
    truth = np.zeros((12, 12, 12))
    truth[6:] = 100.0
    wrong = truth.copy()
    wrong[5:7] += 10.0  # on the one border
    rebuilt = {
        "dct_ball": truth + rng.normal(0, 1, truth.shape),
        "dct_cube": truth + rng.normal(0, 5, truth.shape),
        "dct_best": truth, "medil": wrong,
    }  # fmt: skip
    grid = Grid.from_spacing(truth.shape, 1.0)
    volume = Volume(torch.from_numpy(truth), grid)
    facts = panes.facts_of(Scan(volume, np.ones(truth.shape, bool)), rebuilt)
    assert facts.best == "dct_ball"
    assert facts.at_borders == pytest.approx(1.0)
    assert "farther from the scan" in panes._alt(facts)


def test_the_kept_samples_are_of_the_released_sampler_and_their_maps_hold_classes():
    content = panes.read_script(PACKED / "samples.js")
    assert content["weights"] == short_digest(load_appearance_release().weights_id)
    assert (PACKED / "samples.js").stat().st_size < 1_000_000
    for one in content["panes"][1::2]:
        image = nib.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(one["data"])))
        labels = np.unique(image.get_fdata())
        assert one["names"] == list(CLASSES) and set(labels) <= set(range(len(CLASSES)))
        assert one["window"] == [0, len(CLASSES) - 1] and len(one["colours"]["I"]) == len(CLASSES)


def test_a_block_of_the_brain_is_coded_and_its_scene_shows_the_difference(monkeypatch):
    grid = Grid.from_spacing((16, 14, 15), 1.0, (-8.0, -7.0, -7.5))
    data = np.zeros(grid.shape)
    data[3:13, 3:11, 3:12] = 60 + 40 * np.random.default_rng(2).random((10, 8, 9))
    scan = Scan(Volume(torch.from_numpy(data).float(), grid), data > 0)
    monkeypatch.setattr(panes, "brain_at_1_mm", lambda: (scan, "The MNI152 <average>."))
    monkeypatch.setattr(panes, "SIDE_MM", 10.0)
    monkeypatch.setattr(panes, "ABOVE_MM", 1.0)
    block, _ = panes.brain_block()
    assert block.volume.grid.shape == (10, 10, 10)
    middle_mm = grid.index_to_ras(np.argwhere(scan.mask).mean(axis=0)) + np.array((0, 0, 1.0))
    assert abs(block.volume.grid.centre_mm - middle_mm).max() <= 1

    def rebuilt(model, release, volume, latent):
        truth = volume.data.double().numpy()
        return {"medil": truth + 1, "dct_ball": truth + 2, "bspline": truth + 4}

    monkeypatch.setattr(panes, "rebuilt_by_all", rebuilt)
    scene = panes.brain_scene("tiny")
    shown, medil, code, error = scene.panes
    assert code.title == panes.title_of("dct_ball") and error.signed
    np.testing.assert_allclose(error.data, medil.data - shown.data)
    assert (
        0 < error.data.mean() == pytest.approx((code.data - medil.data).mean(), abs=0.5)
    )  # levels
    assert "&lt;average&gt;" in scene.caption and scene.notice == panes.NOTICE
    assert "nearer to the scan by 6.02 dB" in scene.alt  # half the error


def test_sampled_heads_are_cut_to_their_maps_and_stand_beside_them(monkeypatch, tmp_path, capsys):
    grid = Grid.from_spacing((8, 9, 7), 2.0)

    def sampled(flow, model, seed):
        labels = torch.zeros(grid.shape, dtype=torch.uint8)
        labels[2:5, 3 : 6 + seed, 1:4] = 1 + seed
        return Volume(0.5 * (labels > 0).float() + 0.1 * seed, grid), LabelMap(labels, grid)

    monkeypatch.setattr(panes, "sampled", sampled)
    scene = panes.samples_scene()
    assert [pane.title for pane in scene.panes] == [
        "Sample 0", "Map of sample 0", "Sample 1", "Map of sample 1"
    ]  # fmt: skip
    assert {pane.data.shape for pane in scene.panes} == {scene.grid.shape} == {(3, 4, 3)}
    assert np.unique(scene.panes[3].data).tolist() == [2] and scene.panes[3].classes == CLASSES
    np.testing.assert_allclose(scene.grid.index_to_ras((0, 0, 0)), grid.index_to_ras((2, 3, 1)))
    assert scene.weights == short_digest(load_appearance_release().weights_id)

    assert panes.main(["--scene", "samples", "--out", str(tmp_path / "new")]) == 0
    assert {p.name for p in (tmp_path / "new").iterdir()} == {
        "samples.js", "samples.png", "samples.html"
    }  # fmt: skip

    def refuse(release):
        raise InputError("there is no brain.")

    capsys.readouterr()
    monkeypatch.setattr(panes, "brain_scene", refuse)
    assert panes.main(["--out", str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err == "there is no brain.\n"


def test_a_sampled_head_is_air_where_its_map_is_air(monkeypatch):
    fine = Grid.from_spacing((8, 8, 8), 1.0)
    labels = torch.zeros(fine.shape, dtype=torch.uint8)
    labels[:4] = 2
    told = []
    anatomy = SimpleNamespace(native=fine, tissues=LabelMap(labels, fine))
    field = SimpleNamespace(on=lambda grid: Volume(torch.full(grid.shape, 0.7), grid))
    monkeypatch.setattr(panes, "drawn_anatomy", lambda seed: anatomy)
    monkeypatch.setattr(panes, "covariates_of", lambda flow: {})
    monkeypatch.setattr(panes, "sample_latent", lambda *about: told.append(about[3]))
    scan, tissues = panes.sampled(None, SimpleNamespace(field=lambda latent: field), 5)
    assert told == [5] and scan.grid.spacing_mm == (2.0, 2.0, 2.0)
    assert (scan.data[:2] == torch.tensor(0.7)).all() and not scan.data[2:].any()
    assert torch.equal(tissues.labels > 0, scan.data > 0)


def test_heads_are_cut_to_what_any_map_holds():
    first, second = np.zeros((2, 6, 7, 8), bool)
    first[1, 2, 3] = second[4, 2, 5] = True
    assert panes.around([first, second]) == (slice(1, 5), slice(2, 3), slice(3, 6))


def test_the_packed_viewer_is_the_published_one():
    script = lzma.decompress((PACKED / "niivue.js.xz").read_bytes())
    told = (PACKED / "niivue.txt").read_text("utf-8")
    assert re.search(r"^[0-9a-f]{64}$", told, re.M)[0] == hashlib.sha256(script).hexdigest()
    assert "BSD 2-Clause License" in told


def test_niivue_draws_every_pane_where_the_crosshair_begins(page):
    start = page.evaluate(f"{VIEWER}.mm")
    assert page.evaluate(PLACES) == [pytest.approx(start, abs=1e-3)] * 4
    for n in range(4):
        assert page.evaluate(COLOURS.format(viewer=VIEWER, n=n)) > 20
    assert page.evaluate("document.querySelector('.medil-panes img')") is None


def test_a_click_in_one_pane_moves_all_and_the_values_are_those_stored(page):
    box = page.evaluate("""(() => {
      const box = document.querySelectorAll("canvas")[1].getBoundingClientRect();
      return [box.left + 0.7 * box.width, box.top + 0.4 * box.height];
    })()""")
    before = page.evaluate(f"{VIEWER}.mm")
    for kind in ("mousePressed", "mouseReleased"):
        page.call("Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left",
                  clickCount=1)  # fmt: skip
    after = page.evaluate(f"{VIEWER}.mm")
    assert after != before
    assert page.evaluate(PLACES) == [pytest.approx(after, abs=1e-3)] * 4
    assert page.evaluate(f"{VIEWER}.values()") == pytest.approx(values_at(after), abs=1e-3)


def test_arrow_keys_move_the_crosshair_by_one_voxel_and_the_readout_follows(page):
    page.evaluate(f"{VIEWER}.move([0, -14.5, 8.25])")
    page.evaluate("document.querySelectorAll('input[type=range]')[1].focus()")
    page.press("ArrowRight", 39)
    assert page.evaluate(f"{VIEWER}.mm") == pytest.approx([0, -13, 8.25])
    told = page.evaluate("document.querySelector('[role=status]').textContent")
    assert told.startswith("At R 0, A −13, S 8 mm: Scan ")
    named = "[...document.querySelectorAll('input, select')].every((x) => x.labels.length === 1)"
    assert page.evaluate(named)


def test_one_window_serves_the_grey_panes_and_not_the_error(page):
    page.evaluate("""(() => {
      const white = document.querySelectorAll("input[type=range]")[4];
      white.value = 60;
      white.dispatchEvent(new Event("input"));
    })()""")
    ends = page.evaluate(f"{VIEWER}.views.map((v) => v.volumes[0].cal_max)")
    assert ends == [60, 60, 60, panes.ERROR_PERCENT]


def test_the_page_asks_nobody_and_fits_a_phone(page):
    page.size(360, 800)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.problems == []


def test_without_webgl_the_still_picture_stays_with_a_sentence(page, site):
    script = "HTMLCanvasElement.prototype.getContext = () => null"
    made = page.call("Page.addScriptToEvaluateOnNewDocument", source=script)
    page.open((site / "book/page.html").as_uri())
    page.evaluate(LOADED)
    page.call("Page.removeScriptToEvaluateOnNewDocument", identifier=made["identifier"])
    note = page.evaluate("document.querySelector('.medil-panes-note:not([hidden])').textContent")
    assert note == "The picture stays still: this browser has no WebGL2."
    assert page.evaluate("document.querySelector('.medil-panes img').alt") == "A finding & a cut."
