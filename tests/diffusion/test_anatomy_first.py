"""Anatomy-first sampling: the labels fit the scan, on any grid, the same for the same seed."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

import medil
from medil.anatomy.classes import NUMBER, LabelMap, classes_of
from medil.config import preset
from medil.diffusion.anatomies import in_cells, latent_grid
from medil.diffusion.anatomy_first import covariates_of, slabs
from medil.errors import InputError
from medil.grid import Grid, centres_mm
from medil.model.autoencoder import MedIL
from medil.regrid import cell_average
from tests.anatomy.conftest import toy_packed
from tests.appearance import labels_file, random_flow


@pytest.fixture(scope="module")
def weights() -> dict:
    """An autoencoder with random networks, and a flow of its latents."""
    torch.manual_seed(2)
    model = MedIL(preset("test").model).eval()
    return {"model": model, "flow": random_flow(), "steps": 2}


@pytest.fixture
def ball() -> LabelMap:
    """White matter of 9 mm radius in cortex of 13 mm, off the middle of its grid."""
    grid = Grid.from_spacing((34, 40, 32), 1.0, (-20.0, 3.0, -9.0))
    distance = (centres_mm(grid) - torch.tensor([-3.0, 22.0, 5.0])).norm(dim=-1)
    labels = torch.zeros(grid.shape, dtype=torch.uint8)
    labels[distance < 13] = NUMBER["cortex"]
    labels[distance < 9] = NUMBER["white matter"]
    return LabelMap(labels, grid)


def test_a_map_in_whole_cells_keeps_its_place_and_has_air_around_it(ball):
    mapped = in_cells(ball, 4)
    assert [n % 4 for n in mapped.grid.shape] == [0, 0, 0]
    assert not mapped.labels[:8].any() and mapped.labels[8].any() and not mapped.labels[-8:].any()
    assert torch.equal(mapped.resampled(ball.grid).labels, ball.labels)
    cells = latent_grid(mapped, random_flow())
    assert cells.spacing_mm == (4, 4, 4) and cells.shares_extent(mapped.grid, 1e-6)
    with pytest.raises(InputError, match="no whole cells of 4; see in_cells"):
        latent_grid(ball, random_flow())
    coarse = LabelMap(mapped.labels, Grid.from_spacing(mapped.grid.shape, 2.0))
    with pytest.raises(InputError, match="maps in voxels of 1 mm"):
        latent_grid(coarse, random_flow())


def test_a_seed_gives_one_sample_whose_air_is_air(weights, ball):
    one, again, other = (medil.sample(k, tissue_map=ball, **weights) for k in (5, 5, 6))
    assert torch.equal(one.volume.data, again.volume.data)
    assert (one.volume.data - other.volume.data).abs().max() > 1e-2
    assert one.volume.grid == ball.grid and torch.equal(one.tissues.labels, ball.labels)
    air = ball.labels == 0
    assert not one.volume.data[air].any() and one.volume.data[~air].abs().min() > 0
    assert one.facts == {"seed": 5, "covariates": {"real": 1.0}}


def test_every_voxel_size_renders_the_same_latent(weights, ball):
    fine, one, coarse = (
        medil.sample(5, tissue_map=ball, spacing_mm=mm, **weights) for mm in (0.8, 1, 2)
    )
    assert torch.equal(one.latent.mean, fine.latent.mean)
    assert torch.equal(one.latent.mean, coarse.latent.mean)
    for sampled in (fine, coarse):
        tissue = sampled.tissues.labels > 0
        decoded = weights["model"].decode(sampled.latent, sampled.volume.grid)
        torch.testing.assert_close(sampled.volume.data[tissue], decoded.data[tissue])
        assert sampled.tissues.grid == sampled.volume.grid
        for name, ml in ball.volumes_ml().items():
            assert sampled.tissues.volumes_ml()[name] == pytest.approx(ml, rel=0.1), name
    inside = cell_average(ball.labels.numpy() > 0, ball.grid, coarse.volume.grid) == 1
    means = cell_average(one.volume.data.numpy(), ball.grid, coarse.volume.grid)
    np.testing.assert_allclose(coarse.volume.data[inside], means[inside], atol=1e-4)


def test_slabs_along_any_axis_are_one_scan(weights, ball):
    one = medil.sample(5, tissue_map=ball, **weights)
    field = weights["model"].field(one.latent)
    for axis, descending in ((0, False), (1, True), (2, False)):
        pieces = list(slabs(field, ball, axis, descending))
        assert [start for start, _ in pieces] == sorted(
            (start for start, _ in pieces), reverse=descending
        )
        whole = torch.cat([slab for _, slab in sorted(pieces, key=lambda p: p[0])], dim=axis)
        torch.testing.assert_close(whole, one.volume.data, atol=1e-5, rtol=0)


def test_a_map_in_freesurfer_s_numbers_is_sampled_where_it_lies(weights, tmp_path):
    path = labels_file(tmp_path)
    file = medil.load(path)
    sampled = medil.sample(1, tissue_map=path, **weights)
    assert sampled.volume.grid == file.grid
    assert sampled.volume.source.orientation == "LPS"
    expected = torch.from_numpy(classes_of(file.data.numpy()))
    assert torch.equal(sampled.tissues.labels, expected)
    assert torch.equal(sampled.volume.data != 0, expected > 0)
    low, high = sampled.latent.grid.bounds_mm
    tissue_mm = centres_mm(file.grid)[expected > 0].numpy()
    assert (tissue_mm > low).all() and (tissue_mm < high).all()


def test_a_drawn_anatomy_has_what_is_asked_for(weights, monkeypatch):
    packed = toy_packed()
    monkeypatch.setattr("medil.anatomy.draw.packed_maps", lambda: (packed,))
    sampled = medil.sample(3, condition={"ventricles": 6.0}, spacing_mm=2, **weights)
    assert sampled.facts["ventricles"] == pytest.approx(6.0, rel=0.01)
    assert sampled.facts["seed"] == 3 and sampled.facts["source"] == "toy"
    assert sampled.volume.grid.extent_mm == (160, 192, 160)
    one_mm = sampled.tissues.volumes_ml()["lateral ventricles"]
    assert one_mm == pytest.approx(6.0, rel=0.1)  # counted in voxels of 2 mm


def test_a_sample_like_a_scan_agrees_with_it(weights, ball, monkeypatch):
    drawn = medil.sample(5, tissue_map=ball, **weights)
    scan = weights["model"].decode(drawn.latent, in_cells(ball, 4).grid.with_spacing((2, 2, 4)))
    scan = scan.with_data(200 * scan.data + 50)
    monkeypatch.setattr("medil.diffusion.anatomies.segment", lambda volume: ball)
    like, free = (
        medil.sample(9, like=scan, **weights),
        medil.sample(9, tissue_map=ball, **weights),
    )
    assert like.volume.grid == scan.grid
    assert like.latent.intensity.high > 10 and free.latent.intensity.high == 1
    tissue = like.tissues.labels > 0
    error = (like.volume.data - scan.data)[tissue]
    assert error.square().mean().sqrt() < 0.1 * scan.data[tissue].std()


def test_covariates_are_checked_against_what_was_seen():
    flow = random_flow()
    assert covariates_of(flow) == {"real": 1.0}
    assert covariates_of(flow, contrast=1.5) == {"contrast": 1.5, "real": 1.0}
    with pytest.raises(InputError, match=r"contrast = 3 is outside 1\.2 to 1\.6, the range"):
        covariates_of(flow, contrast=3.0)
    with pytest.raises(InputError, match="without age"):
        covariates_of(flow, age=40.0)


def test_a_request_that_cannot_be_met_is_refused(weights, ball, monkeypatch):
    with pytest.raises(InputError, match="no condition 'contrast' of an anatomy; choose from"):
        medil.sample(condition={"contrast": 1.4}, **weights)
    with pytest.raises(InputError, match="name one of them"):
        medil.sample(condition={"brain": 900.0}, tissue_map=ball, **weights)
    with pytest.raises(InputError, match="of another autoencoder"):
        medil.sample(tissue_map=ball, **{**weights, "flow": random_flow("other")})
    empty = LabelMap(torch.zeros_like(ball.labels), ball.grid)
    with pytest.raises(InputError, match="all air"):
        medil.sample(tissue_map=empty, **weights)
    rival = SimpleNamespace(config=SimpleNamespace(closed_form=False), weights_id="")
    with pytest.raises(InputError, match="closed form"):
        medil.sample(like=ball, **{**weights, "model": rival})
