"""Guards: mirror images agree, averaging is a known filter, consistency gives scans back."""

import numpy as np
import pytest
import torch

from medil.grid import Grid
from medil.model.guards import (
    BAND_SHARE,
    ERRORS_PER_SPREAD,
    Ensemble,
    band_limited,
    consistent,
    guarded,
    mirrored,
    mirrored_grid,
    predicted_error,
    projected,
    smooth_spread,
)
from medil.regrid import cell_average
from medil.volume import Intensity, Volume

UNIT = Intensity(0.0, 1.0)


@pytest.fixture
def scan(rng) -> Volume:
    """Whole latent cells, so that mirror images share them."""
    grid = Grid.from_spacing((8, 16, 12), (2.0, 1.0, 1.0), (-3.0, 5.0, 7.0))
    return Volume(torch.from_numpy(rng.random(grid.shape)).float(), grid)


def test_a_mirrored_grid_holds_the_mirror_images_of_its_points(grid, oblique_grid):
    other = grid.resized((5, 6, 7)).shifted((3.0, 1.0, -2.0))
    turned, backwards = mirrored_grid(other, grid, (0, 2))
    assert backwards == (0, 2) and turned.is_parallel_to(grid)
    expected = 2 * grid.centre_mm - other.index_to_ras(np.zeros(3))
    expected[1] = other.index_to_ras(np.zeros(3))[1]
    assert np.allclose(turned.index_to_ras((4, 0, 6)), expected)
    turned, backwards = mirrored_grid(oblique_grid, grid, (1,))
    assert backwards == ()
    point = oblique_grid.index_to_ras((1, 2, 3))
    point[1] = 2 * grid.centre_mm[1] - point[1]
    assert np.allclose(turned.index_to_ras((1, 2, 3)), point)


@pytest.mark.parametrize("oblique", [False, True])
def test_a_closed_form_is_the_mean_of_its_mirror_images_which_do_not_differ(
    spline_model, scan, oblique
):
    target = Grid.from_spacing((5, 6, 4), 1.3, (0.0, 9.0, 9.0))
    target = target.rotated((1.0, 1.0, 0.0), 20.0) if oblique else target
    plain = spline_model.field(spline_model.encode(scan, UNIT)).on(target).data
    found = mirrored(spline_model, scan, target, UNIT)
    assert torch.allclose(found.mean.data, plain, atol=1e-4)
    assert found.spread.data.max() < 1e-4


def test_averaging_over_a_cell_multiplies_a_wave_by_its_transfer_function():
    grid, cell_mm, per_mm = Grid.from_spacing((200, 1, 1), 0.1), 1.1, 0.4
    places_mm = np.arange(200) * 0.1
    wave = np.cos(2 * np.pi * per_mm * places_mm)[:, None, None]
    found = band_limited(wave, grid, (cell_mm, 0.0, 0.0))
    inside = slice(20, -20)
    assert np.allclose(found[inside], np.sinc(per_mm * cell_mm) * wave[inside], atol=5e-3)
    assert np.allclose(band_limited(wave, grid, cell_mm, share=0.0), wave)
    assert np.allclose(band_limited(np.ones((200, 1, 1)), grid, cell_mm), 1.0)


def test_a_projection_gives_the_scan_back_and_a_correction_comes_nearer(rng, scan):
    fine = scan.grid.with_spacing(0.8)
    data, true = rng.random(fine.shape), scan.data.double().numpy()
    exact = projected(data, fine, true, scan.grid)
    assert np.allclose(cell_average(exact, fine, scan.grid), true)
    half = consistent(data, fine, true, scan.grid, share=0.5)
    before, after = (cell_average(x, fine, scan.grid) - true for x in (data, half))
    assert np.square(after).mean() < 0.6 * np.square(before).mean()


def test_a_smooth_spread_keeps_its_mean_square_and_reaches_as_far_along_every_axis():
    grid = Grid.from_spacing((30, 20, 20), (1.0, 1.5, 2.0))
    spread = np.full(grid.shape, 0.3)
    assert smooth_spread(spread, grid) == pytest.approx(0.3)
    spread[15, 10, 10] += 10
    found = smooth_spread(spread, grid)
    assert np.mean(found**2) == pytest.approx(np.mean(spread**2), rel=1e-4)
    assert found[17, 10, 10] == pytest.approx(found[15, 10, 11], rel=0.05)  # both 2 mm away


def test_voxels_without_a_value_stay_so_and_spoil_no_others(spline_model, scan):
    scan.data[0, 3, 4] = torch.nan
    found = mirrored(spline_model, scan, None, UNIT)
    for volume in (guarded(found, scan.grid), predicted_error(found)):
        assert volume.grid.is_close(scan.grid)
        assert (~torch.isfinite(volume.data)).nonzero().tolist() == [[0, 3, 4]]


def test_a_predicted_error_is_the_smooth_spread_in_a_known_proportion(rng):
    grid = Grid.from_spacing((6, 7, 8), 1.0)
    mean, spread = (Volume(torch.from_numpy(rng.random(grid.shape)).float(), grid) for _ in "ab")
    found = predicted_error(Ensemble(mean, spread)).data.numpy()
    expected = ERRORS_PER_SPREAD * smooth_spread(spread.data.numpy(), grid)
    assert found == pytest.approx(expected, rel=1e-5)
    limited = band_limited(mean.data.numpy(), grid, 2.0, BAND_SHARE)
    coarse = grid.with_spacing(2.0)
    assert guarded(Ensemble(mean, spread), coarse).data.numpy() == pytest.approx(limited, rel=1e-5)
