"""The jobs that are timed do what they say, and what is made of their times adds up.

No test asserts how fast anything is.
"""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch.nn import functional

from eval.speed import child, clock, live, model, page, patches, whole
from eval.speed.renderers import awake
from eval.speed.timing import Plan
from eval.subjects import Scan
from medil.config import preset
from medil.grid import Grid
from medil.model.autoencoder import MedIL
from medil.model.weights import weights_sha256
from medil.volume import Volume, save

PLAN = Plan(
    cells=3, rounds_slow=1, rounds_fast=2, rounds_whole=2, spacings_mm=(1.0, 0.5), tile_mm=30.0,
    rounds_training=2,
)  # fmt: skip


@pytest.fixture(scope="module")
def head() -> Volume:
    """A ball of smooth noise in air, 36 x 34 x 38 voxels of 1 mm."""
    grid = Grid.from_spacing((36, 34, 38), 1.0, (-18.0, -17.0, -19.0))
    noise = ndimage.gaussian_filter(np.random.default_rng(5).normal(size=grid.shape), 1.0)
    axes = np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in grid.shape), indexing="ij")
    inside = sum(a**2 for a in axes) < 14**2
    return Volume(torch.from_numpy(np.where(inside, 500 + 800 * noise, 0)).float(), grid)


@pytest.fixture(scope="module")
def own() -> MedIL:
    """A small autoencoder with weights everywhere."""
    return awake(MedIL(preset("test").model))


@pytest.fixture(autouse=True)
def small(head, own, monkeypatch):
    """The head stands in for the real brain, a small model for the release; patches are small."""
    scan = Scan(head, head.data.numpy() > 0)
    for place in ("medil.model.weights", "eval.speed.model", "eval.speed.whole"):
        monkeypatch.setattr(f"{place}.load_release", lambda name: own)
    for module in (model, patches):
        monkeypatch.setattr(module, "preset", lambda name: preset("test"))
    for module in (model, patches, whole):
        monkeypatch.setattr(module, "brain_at_1_mm", lambda: (scan, "a made head"))
    for module in (model, patches):
        monkeypatch.setattr(module, "PATCH_MM", 12.0)


# In this process


def test_a_step_sends_gradients_to_every_part_and_ratios_are_within_rounds(monkeypatch):
    made = []
    awake = model.awake
    monkeypatch.setattr(model, "awake", lambda net, device: made.append(net) or awake(net, device))
    integrated, literal = model.training(PLAN)
    assert [integrated.arm, literal.arm] == list(model.OPERATORS)
    ratio = literal.values["seconds"] / integrated.values["seconds"]
    assert literal.values["ratio_to_integrated"] == pytest.approx(ratio)
    assert integrated.n_voxels == 12**3 and "ratio_to_integrated" not in integrated.values
    for network in made:
        for part in (network.encoder, network.decoder):
            assert any(p.grad is not None and p.grad.abs().max() > 0 for p in part.parameters())


def test_tiles_of_every_size_agree_with_the_encoder_that_knows_none(own):
    found = model.tiles(PLAN)
    assert [t.sizes.split(", ")[1] for t in found] == [
        f"tiles of {cells} cells" for cells in model.THICK_CELLS
    ]
    assert all(0 <= t.values["max_error"] < 1e-3 for t in found)
    assert {t.sizes.split(",")[0] for t in found} == {"30 x 27 x 32"}
    assert found[0].weights_sha256 == weights_sha256(own)


def test_a_brain_on_a_gpu_is_rendered_whole_and_its_memory_is_that_of_a_decode(monkeypatch):
    rendered, jobs = [], []
    render = MedIL.render_features

    def counted(self, features, nodes, slab):
        rendered.append(slab.n_voxels)
        return render(self, features, nodes, slab)

    monkeypatch.setattr(MedIL, "render_features", counted)
    monkeypatch.setattr(clock, "device_ms", lambda job: jobs.append(job) or 1.5)
    monkeypatch.setattr(clock, "peak_cuda_mb", lambda job: jobs.append(job) or 7.0)
    (found,) = model.brain(PLAN)
    assert found.n_voxels == 72 * 68 * 76 and found.values["device_ms"].tolist() == [1.5, 1.5]
    assert found.values["peak_cuda_mb"] == 7.0 and len(set(jobs)) == 1
    rendered.clear()
    with torch.inference_mode():
        jobs[0]()
    assert sum(rendered) == found.n_voxels and len(rendered) == 2  # slabs of 64 and 8


def test_patches_of_a_store_and_of_files_are_of_one_size_and_one_head(tmp_path, monkeypatch, head):
    monkeypatch.setattr(patches, "PATCHES", 2)
    monkeypatch.setattr(patches, "STEPS", 2)
    store, files = patches.measure(PLAN)
    ratio = store.values["patches_per_s"] / files.values["patches_per_s"]
    assert store.values["ratio_to_files"] == pytest.approx(ratio)
    assert 0 <= store.values["waiting_share"].item() <= 100
    assert store.sizes == files.sizes == "12 mm patches, 3 volumes at 1 mm"

    paths = patches.written_volumes(tmp_path)
    whole_file = patches.from_file(paths[0])
    middle = head.data[12:24, 11:23, 13:25] * 4000 / head.data.max()
    assert whole_file.shape == (12, 12, 12) and len(set(paths)) == patches.VOLUMES
    assert (whole_file - middle).std().item() == pytest.approx(40, rel=0.1)  # its noise


def test_waiting_is_a_share_of_the_time_after_the_first_patch(monkeypatch):
    monkeypatch.setattr(patches, "STEPS", 2)
    drawn, stepped = [], []
    share = patches.waiting_share(lambda number, _: drawn.append(number), lambda: stepped.append(1))
    assert 0 <= share <= 100 and sum(stepped) == 2 and drawn[:3] == [0, 1, 2]


# In processes of their own


@pytest.fixture
def children(monkeypatch):
    """Jobs that would run in processes; each costs what `costs` says."""
    called = []

    def run_job(name, threads, /, **arguments):
        called.append((name, threads, arguments))
        cost = {"idle": 1.0, "release": 2.0, "monai": 6.0, "command": 3.0}[name]
        values = dict.fromkeys((*whole.MEASURED, "process_s"), cost)
        if "decode" in arguments.get("arguments", ()):
            values["peak_rss_mb"] = 10.0 / float(arguments["arguments"][5])
        return values

    monkeypatch.setattr(child, "run_job", run_job)
    return called


def test_a_whole_brain_is_compared_in_turns_on_one_file(children):
    idle, own, peer = whole.compare(PLAN)
    assert [name for name, *_ in children] == ["idle", *["release", "monai"] * 2]
    assert len({arguments["scan"] for _, _, arguments in children[1:]}) == 1
    assert own.values["ratio_to_monai"].tolist() == [3.0, 3.0]  # times as long
    assert own.values["peak_ratio_to_monai"].tolist() == [1 / 3, 1 / 3]
    assert idle.values == {"peak_rss_mb": 1.0} and peer.values["encode_s"].tolist() == [6.0, 6.0]
    assert own.condition == "whole brain | 36 x 34 x 38 | 2 threads" and own.arm == "tiny"


def test_growth_is_of_one_latent_and_its_ratio_is_to_the_coarsest(children):
    coarse, fine = whole.grow(PLAN)
    commands = [arguments["arguments"] for *_, arguments in children]
    assert [c[0] for c in commands] == ["encode", "decode", "decode"]
    assert len({c[3] if c[0] == "encode" else c[1] for c in commands}) == 1  # one latent
    assert coarse.values["peak_ratio_to_1_mm"] == 1 and fine.values["peak_ratio_to_1_mm"] == 2
    assert fine.n_voxels == 8 * coarse.n_voxels == 8 * 36 * 34 * 38


def test_jobs_of_a_child_code_a_scan_and_say_their_peak_once(tmp_path, head, capsys):
    path = save(head, tmp_path / "head.nii")
    own = child.release(str(path), "tiny", 1.5)
    assert set(own) == set(whole.MEASURED) and min(own.values()) > 0
    latent = tmp_path / "head.safetensors"
    child.main("command", json.dumps({"arguments": ["encode", str(path), "-o", str(latent)]}))
    (line,) = [s for s in capsys.readouterr().out.splitlines() if s.startswith(child.MARK)]
    said = json.loads(line.removeprefix(child.MARK))
    assert latent.exists() and set(said) == {"verb_s", "peak_rss_mb"}
    with pytest.raises(SystemExit) as ended:
        child.command(["encode", str(tmp_path / "none.nii")])
    assert ended.value.code == 2 and child.idle() == {}


def test_a_rival_that_halves_twice_gets_a_scan_whose_sides_can_be_halved(
    tmp_path, head, monkeypatch
):
    seen = []

    class Rival(torch.nn.Module):
        def encode(self, image):
            seen.append(tuple(image.shape))
            return functional.avg_pool3d(image, 4), None

        def decode(self, mean):
            return functional.interpolate(mean, scale_factor=4)

    nets = SimpleNamespace(AutoencoderKL=lambda *sizes, **more: Rival())
    for name in ("monai", "monai.networks", "monai.networks.nets"):
        monkeypatch.setitem(sys.modules, name, nets)
    path = save(head, tmp_path / "head.nii")  # 34 and 38 are no multiples of 4
    values = child.monai(str(path), [32, 64, 64], 8, 1.5)
    assert seen == [(1, 1, 36, 36, 40)]
    assert set(values) == set(whole.MEASURED) and min(values.values()) > 0


# The live picture


class Browser:
    """A page in which a round takes 0.5 s by the clock and 0.25 s of its thread."""

    def __init__(self) -> None:
        self.states, self.spent_s, self.shown = [], 0.0, ""

    def open(self, address: str) -> None:
        self.shown = address

    def evaluate(self, script: str):
        if script == live.ROUND.format(frames=live.FRAMES):
            self.spent_s += 0.25
            return 500.0
        if "Object.assign" in script:
            self.states.append(json.loads(script.split("viewer.state, ")[1].split(");")[0]))
        return "140" if "userAgent" in script else True

    def cpu_s(self) -> float:
        return self.spent_s


def test_frames_are_counted_by_the_clock_and_by_the_thread_for_every_arm(monkeypatch):
    browser = Browser()

    @contextmanager
    def opened():
        yield browser

    monkeypatch.setattr(live.browser, "page", opened)
    found = live.measure(PLAN)
    assert [t.arm for t in found] == list(live.ARMS) and browser.shown.endswith("/live.html")
    for timing, state in zip(found, browser.states, strict=False):
        assert timing.values["frames_per_s"].tolist() == [20.0, 20.0]
        assert timing.values["frames_per_cpu_s"].tolist() == [40.0, 40.0]
        assert timing.config["chromium"] == "140" and state["tilt"] == timing.config["tilt"]
    assert len(browser.states) == 2 * len(live.ARMS)  # in turns


def test_the_live_picture_on_a_page_alone_finds_its_files(tmp_path):
    address = live.as_page(tmp_path)
    text = (tmp_path / "live.html").read_text("utf-8")
    assert address == (tmp_path / "live.html").as_uri() and "../interactive" not in text
    assert live.FOLDER.resolve().as_uri() in text


# What the page computes


def test_forms_on_the_page_agree_with_the_naive_one():
    table = page.forms_table(cells=3, rounds=1)
    assert len(table) == 3 and table["Largest difference"].iloc[0] == ""
    assert all(float(d) < 1e-4 for d in table["Largest difference"].iloc[1:])


def test_parts_rendered_alone_are_the_whole(head, own):
    apart = page.parts_apart(own, own.encode(head), head.grid.with_spacing(2.0), 7)
    assert len(apart) == 4 and max(apart.values()) < 1e-3


def test_memory_on_the_page_is_beyond_an_idle_process(head, children):
    table = page.growth_table(head, "tiny", (1.0, 0.5), "1GB")
    assert table["Peak memory (MB)"].tolist() == ["10", "20"]
    assert table["Beyond an idle process (MB)"].tolist() == ["9", "19"]
    assert table["Voxels"].tolist() == ["46,512", "372,096"]
    assert table["File (MB)"].tolist() == ["0.2", "1.5"]
    assert all(a["arguments"][-2:] == ["--memory", "1GB"] for n, _, a in children if n != "idle")


def test_waves_from_the_formula_repeat_after_two_cells_of_one_half_cycle():
    deltas = (np.array([0.0, 1.0, 2.0]), np.zeros(1), np.array([0.0, 0.5]))
    waves = page.direct_waves(
        np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]), np.array([0, 0.5]), deltas
    )
    assert waves.shape == (2, 3, 1, 2)
    np.testing.assert_allclose(waves[0, :, 0, 0], [1, -1, 1], atol=1e-12)
    np.testing.assert_allclose(waves[1, 0, 0], [1j, -1], atol=1e-12)
