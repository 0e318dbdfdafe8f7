"""The pages on sampling: closed forms, places in mm, and sentences that follow the numbers."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from eval.generation import page as pages
from medil.config import PRESETS
from medil.diffusion.config import FLOW_PRESETS, FlowConfig
from medil.errors import InputError
from medil.grid import Grid, centres_mm
from medil.io.intensity import Intensity
from medil.latent import Latent
from medil.model.autoencoder import MedIL
from medil.synth.attributes import Spread
from medil.synth.box import box_grid
from medil.volume import Volume

SPREADS = {"brain": Spread(1000.0, 100.0, 800.0, 1200.0)}


def ball(radius_mm: float, grid: Grid, level: float = 0.8) -> Volume:
    """Bright inside a ball around the origin."""
    inside = centres_mm(grid).norm(dim=-1) < radius_mm
    return Volume(torch.where(inside, level, 0.0).float(), grid)


def latent_of(mean: torch.Tensor, grid: Grid, weights_id: str = "") -> Latent:
    native = grid.with_spacing(1.0)
    return Latent(mean, torch.zeros_like(mean), grid, native, Intensity(0, 1), None, weights_id)


@pytest.fixture
def model() -> MedIL:
    torch.manual_seed(0)
    return MedIL(PRESETS["test"].model).eval()


@pytest.fixture
def latent() -> Latent:
    mean = torch.randn((8, 8, 9, 10), generator=torch.Generator().manual_seed(1))
    return latent_of(mean, Grid.from_spacing((8, 9, 10), 4.0, (3.0, -2.0, 1.0)))


def test_several_renderings_are_those_of_the_decoder(model, latent):
    grids = [latent.grid.with_spacing(mm) for mm in (2.0, 4.0)]
    found = pages.rendered(model, latent, grids)
    for volume, grid in zip(found, grids, strict=True):
        assert volume.grid == grid
        alone = model.decode(latent, grid)
        spread = alone.data.std()
        assert (volume.data - alone.data).abs().max() < 0.02 * spread  # bfloat16


def test_a_rendering_averaged_over_whole_voxels_is_the_coarser_rendering(model, latent):
    fine, coarse = pages.rendered(model, latent, [latent.grid.with_spacing(m) for m in (2.0, 4.0)])
    means = torch.nn.functional.avg_pool3d(fine.data[None, None], 2)[0, 0]
    torch.testing.assert_close(means, coarse.data, atol=1e-4, rtol=1e-4)


def test_blocks_are_the_latent_in_other_places(latent):
    found = pages.blocks_of(latent, cells=4, reach=1)
    assert len(found.latents) == 27
    middle = found.latents[13]
    torch.testing.assert_close(middle, latent.mean[:, 2:6, 2:6, 3:7])
    torch.testing.assert_close(found.latents[0][:, 1:, 1:, 1:], middle[:, :-1, :-1, :-1])
    first_mm = latent.grid.index_to_ras(np.array([2, 2, 3]))
    np.testing.assert_allclose(found.grid.index_to_ras(np.zeros(3)), first_mm)


def test_an_untrained_flow_loses_what_the_closed_form_says():
    pytest.importorskip("monai")
    pytest.importorskip("einops")
    from medil.diffusion.flow import LatentFlow, LatentStatistics

    known = LatentStatistics(torch.zeros(8, 16, 16, 16), torch.ones(8), box_grid(4.0).crop(
        (0, 0, 0), (16, 16, 16)), {}, "")  # fmt: skip
    config = FlowConfig(channels=(16, 16), head_channels=16, conditions=())
    assert config.fold == FLOW_PRESETS["test"].model.fold
    flow = LatentFlow(config, known).eval()
    x, noise = torch.randn((2, 1, 64, 8, 8, 8), generator=torch.Generator().manual_seed(2))
    for t in (0.2, 0.5, 1.0):
        with torch.inference_mode():
            loss = flow.loss(
                x, noise, torch.tensor([int(1000 * t)]), flow.embed_conditions([{}])
            ).item()
        assert loss == pytest.approx(float(pages.untrained(np.array(t))), rel=0.03)


def test_the_untrained_loss_is_that_of_the_best_line_through_the_origin(rng):
    x, noise = rng.standard_normal((2, 200_000))
    for t in (0.5, 0.9):
        z = (1 - t) * x + t * noise
        best = z * (z @ x) / (z @ z)
        assert pages.untrained(np.array(t)) == pytest.approx(
            np.mean((best - x) ** 2) / t**2, rel=0.02
        )


def test_rms_counts_inside_the_mask_alone_and_refuses_another_grid():
    grid = Grid.from_spacing((4, 5, 6), 2.0)
    a, b = (Volume(torch.full(grid.shape, value), grid) for value in (0.25, 0.75))
    mask = np.zeros(grid.shape, dtype=bool)
    mask[1] = True
    b.data[0] = 100.0
    assert pages.rms(a, b, mask) == pytest.approx(0.5)
    with pytest.raises(InputError, match="one grid"):
        pages.rms(a, Volume(b.data, grid.shifted((1.0, 0, 0))), mask)


def test_the_sentence_on_agreement_follows_the_ratio():
    assert "20 times" in pages.agreement(0.01, 0.2)
    assert "over ten thousand" in pages.agreement(0.0, 0.2)


def test_looks_see_crumbs_size_and_detail(rng):
    grid = box_grid(4.0).with_spacing(2.0)
    plain = ball(58.0, grid)
    texture = 0.2 * torch.from_numpy(rng.standard_normal(grid.shape)).float()
    textured = plain.with_data(plain.data + texture * (plain.data > 0))
    told = pages.looks(textured, textured, SPREADS)
    assert "1.00 of the power" in told and "about as much detail" in told
    assert "blurred" in pages.looks(plain, textured, SPREADS)
    assert "noise" in pages.looks(textured, plain, SPREADS)
    crumbs = plain.data.clone()
    crumbs[2:20, 2:20, 2:20] = 0.8
    assert "crumbs" in pages.looks(plain.with_data(crumbs), textured, SPREADS)


def test_the_level_of_the_ventricles_lies_a_third_of_the_length_below_the_top():
    grid = box_grid(2.0)
    point_mm = pages.ventricle_level_mm(ball(60.0, grid))
    np.testing.assert_allclose(point_mm, (0, 0, 60 - 0.33 * 120), atol=2.0)


def test_copies_have_no_variety_blurred_or_not(rng):
    grid = box_grid(4.0).with_spacing(2.0)
    one = ball(58.0, grid).data.numpy()
    one = one + 0.1 * rng.standard_normal(one.shape).astype(np.float32) * (one > 0)
    other = np.roll(0.9 * one, 4, axis=1)
    found = pages.blur_lines([one, one], (0.0,))
    assert found["ms_ssim"][0] == pytest.approx(1.0, abs=1e-6)
    assert found["shape"][0] == pytest.approx(0.0, abs=1e-6)
    apart = pages.blur_lines([one, other], (0.0, 2.0))
    assert apart["ms_ssim"][0] < apart["ms_ssim"][1] < 1
    assert list(apart["sigma_mm"]) == [0.0, 2.0]


# Figures


def test_the_viewer_shows_every_volume_at_the_same_millimetre():
    pictures = pytest.importorskip("eval.generation.pictures")
    fine = ball(30.0, Grid.from_spacing((80, 80, 80), 1.0, (-39.5,) * 3))
    coarse = ball(30.0, Grid.from_spacing((20, 20, 20), 4.0, (-38.0,) * 3))
    picture = pictures.frame({"a": fine, "b": coarse}, "coronal", 0.0, (0.0, 0.8))
    side = (picture.shape[1] - pictures.GAP) // 2
    left, right = picture[:, :side] > 128, picture[:, -side:] > 128
    area_mm2 = np.array([left.sum(), right.sum()]) * pictures.PIXEL_MM**2
    np.testing.assert_allclose(area_mm2, np.pi * 30**2, rtol=0.05)
    assert (left == right).mean() > 0.95
    above = pictures.frame({"a": fine}, "coronal", 29.9, (0.0, 0.8))
    assert (above > 128).sum() < 0.05 * left.sum()


def test_the_viewer_puts_superior_on_top_and_right_on_the_right():
    pictures = pytest.importorskip("eval.generation.pictures")
    grid = Grid.from_spacing((40, 40, 40), 2.0, (-39.0,) * 3)
    data = torch.zeros(grid.shape)
    data[30:, :, 30:] = 1.0  # right, superior
    picture = pictures.frame({"a": Volume(data, grid)}, "coronal", 0.0, (0.0, 1.0)) > 128
    rows, columns = np.nonzero(picture)
    assert rows.max() < picture.shape[0] / 2 and columns.min() > picture.shape[1] / 2


def test_the_viewer_is_a_slider_with_words_for_those_who_do_not_see():
    pytest.importorskip("IPython")
    pictures = pytest.importorskip("eval.generation.pictures")
    volume = ball(30.0, Grid.from_spacing((40, 40, 40), 2.0, (-39.0,) * 3))
    html = pictures.slices_viewer({"a < b": volume}, (0.0, 1.0), frames=5, alt="a 'ball'").data
    assert html.count("data:image/jpeg;base64,") == 5 + 1
    assert "max='4'" in html and "alt='a &#x27;ball&#x27;'" in html and "a &lt; b" in html


def test_curves_are_drawn_where_the_numbers_are():
    pytest.importorskip("matplotlib")
    pictures = pytest.importorskip("eval.generation.pictures")
    share = np.full((24, 2), 0.5)
    lines = pictures.loss_curve(share, np.linspace(3, 1, 24)).axes[0].lines
    by_name = {line.get_label(): line.get_ydata() for line in lines}
    np.testing.assert_allclose(by_name["every number by itself"], 0.0)
    np.testing.assert_allclose(by_name["one step"], np.linspace(1, -1, 24))
    blur = pd.DataFrame({"sigma_mm": [0, 2], "ms_ssim": [0.6, 0.8], "shape": [4.0, 3.0]})
    left, right = pictures.blur_curves({"a": blur}).axes
    np.testing.assert_allclose(left.lines[0].get_ydata(), [1.0, 0.5])
    np.testing.assert_allclose(right.lines[0].get_ydata(), [1.0, 0.75])
    assert left.get_ylim() == right.get_ylim() and left.get_ylim()[0] == 0


# Requests


@pytest.fixture
def samplers(monkeypatch):
    """Samples whose first number is the request, told how often it is weighted."""
    told = []

    def sample(flow, model, seeds, requests, guidance, steps):
        told.append((seeds, requests, guidance, steps))
        return [guidance * request["brain"] for request in requests]

    def scan_of(tissues, model, flow, seed, about, steps):
        told.append((seed, about, steps))
        return np.full(box_grid(2.0).shape, tissues), None

    monkeypatch.setattr("medil.diffusion.sampling.sample", sample)
    monkeypatch.setattr(pages, "rendered", lambda m, z, grids: [ball(z, g) for g in grids])
    monkeypatch.setattr(pages, "measure_attributes", lambda data: {"sum": float(data.sum())})
    monkeypatch.setattr(pages, "as_synthetic", lambda flow, request: {**request, "real": 0.0})
    monkeypatch.setattr(
        pages, "drawn_anatomy", lambda seed, request: SimpleNamespace(tissues=request["brain"])
    )
    monkeypatch.setattr(pages, "scan_of", scan_of)
    return told


def test_requests_share_their_noise_and_lines_follow_the_volumes(samplers):
    requests = [{"brain": 10.0}, {"brain": 14.0}]
    table, volumes = pages.sample_requests(None, None, requests, (1.0, 2.0), 7, 5)
    assert table["guidance"].tolist() == [1.0, 1.0, 2.0, 2.0]
    assert table["requested"].tolist() == requests * 2
    sums = [float(v.data.sum()) for v in volumes]
    assert [m["sum"] for m in table["measured"]] == pytest.approx(sums)
    assert sums == sorted(sums) and len(set(sums)) == 4  # balls of 10, 14, 20 and 28 mm
    assert [(t[0], t[2], t[3]) for t in samplers] == [([7, 7], 1.0, 5), ([7, 7], 2.0, 5)]
    assert samplers[0][1] == [{**r, "real": 0.0} for r in requests]


def test_solved_requests_are_of_one_seed_and_look_synthetic(samplers):
    table, volumes = pages.solve_requests(None, None, [{"brain": 0.25}, {"brain": 0.5}], 7, 3)
    assert [float(v.data.mean()) for v in volumes] == [0.25, 0.5]
    assert samplers == [(7, {"real": 0.0}, 3)] * 2
    assert table["measured"][1]["sum"] == pytest.approx(2 * table["measured"][0]["sum"])


def test_a_flow_says_what_it_was_trained_on():
    for counts, said in (
        (64, "64 synthetic heads"),
        ({"synthetic": 64, "real": 0}, "64 synthetic heads"),
        ({"synthetic": 64, "real": 9}, "64 synthetic heads and 9 copies of real scans"),
    ):
        assert pages.training_set(SimpleNamespace(facts={"heads": counts})) == said


def test_distance_from_the_mean_is_that_of_the_coarse_flow_of_a_cascade():
    latents = torch.arange(8.0).reshape(1, 1, 2, 2, 2)
    fine = SimpleNamespace(known=SimpleNamespace(grid=Grid.from_spacing((2, 2, 2), 4.0)))
    fine.centred = lambda z: z / 2
    fine.coarse = None
    rms = float(latents.square().mean().sqrt())
    assert pages.from_mean(fine, latents) == pytest.approx(rms / 2)
    coarse = SimpleNamespace(known=SimpleNamespace(grid=Grid.from_spacing((1, 1, 1), 8.0)))
    coarse.centred = lambda z: z - 1
    fine.coarse = coarse
    assert pages.cells(fine, coarse) == 2
    assert pages.from_mean(fine, latents) == pytest.approx(2.5)  # the mean of all, less one


@pytest.mark.parametrize(
    ("share", "said"),
    [(0.4, "blurred"), (0.7, "smoother"), (1.0, "about as much detail"), (1.3, "is noise")],
)
def test_words_on_detail_follow_its_share(share, said):
    assert said in pages._detail(share)
