"""The linear codecs: how many numbers they keep, and what those numbers can hold."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import fft

from medil.errors import InputError
from medil.grid import Grid, centres_mm
from medil.model.codecs import (
    CODECS,
    LINEAR_CODECS,
    bspline,
    coarse_shape,
    cubic,
    dct_ball,
    dct_best,
    dct_cube,
    frequencies_per_mm,
)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20)


@pytest.fixture
def grid() -> Grid:
    return Grid.from_spacing((18, 21, 11), spacing_mm=(1.0, 1.5, 3.0), origin_mm=(-7, 4, 2))


def scan_like(grid: Grid, rng: np.random.Generator) -> np.ndarray:
    """Noise whose amplitude falls as 1/|frequency in cycles/mm|^2, as scans do."""
    radius = np.sqrt(sum(f**2 for f in frequencies_per_mm(grid)))
    return fft.idctn(rng.normal(size=grid.shape) / (radius + 0.02) ** 2, norm="ortho")


def squared_error(codec, data, grid, n):
    return float(((codec(data, grid, n).reconstruction - data) ** 2).sum())


@pytest.mark.parametrize("codec", [dct_cube, dct_ball, dct_best])
@pytest.mark.parametrize("n", [1, 7, 500, 3001])
def test_cosine_codecs_keep_exactly_n_numbers(codec, n, grid, rng):
    data = rng.normal(size=grid.shape)
    coded = codec(data, grid, n)
    assert coded.numbers_kept == n
    spectrum = fft.dctn(coded.reconstruction, norm="ortho")
    assert (np.abs(spectrum) > 1e-9).sum() == n


@pytest.mark.parametrize("codec", [cubic, bspline])
@pytest.mark.parametrize("n", [1, 50, 519, 3001])
def test_spline_codecs_keep_n_numbers_or_barely_more_and_say_how_many(codec, n, grid, rng):
    coded = codec(rng.normal(size=grid.shape), grid, n)
    assert coded.numbers_kept == math.prod(coarse_shape(grid, n))
    assert n <= coded.numbers_kept <= 1.25 * n + 3


def test_the_space_a_spline_codec_rebuilds_in_has_the_rank_it_reports(rng):
    grid = Grid.from_spacing((6, 5, 4), (1.0, 1.0, 2.0))
    units = np.eye(grid.n_voxels).reshape(-1, *grid.shape)
    for codec in (cubic, bspline):
        columns = [codec(unit, grid, 24).reconstruction.ravel() for unit in units]
        kept = codec(units[0], grid, 24).numbers_kept
        assert np.linalg.matrix_rank(np.stack(columns), tol=1e-8) == kept


@pytest.mark.parametrize("name", list(CODECS))
def test_all_numbers_rebuild_the_volume(name, grid, rng):
    data = rng.normal(size=grid.shape)
    for n in (grid.n_voxels, 2 * grid.n_voxels):
        coded = CODECS[name](data, grid, n)
        assert coded.numbers_kept == grid.n_voxels
        np.testing.assert_allclose(coded.reconstruction, data, atol=1e-7)


@pytest.mark.parametrize("name", list(LINEAR_CODECS))
def test_linear_codecs_are_linear(name, grid, rng):
    one, two = rng.normal(size=(2, *grid.shape))
    run = lambda data: LINEAR_CODECS[name](data, grid, 300).reconstruction  # noqa: E731
    np.testing.assert_allclose(run(2 * one - 3 * two), 2 * run(one) - 3 * run(two), atol=1e-9)


@pytest.mark.parametrize("name", ["dct_cube", "dct_ball", "bspline"])
def test_projections_change_nothing_the_second_time(name, grid, rng):
    once = CODECS[name](rng.normal(size=grid.shape), grid, 300).reconstruction
    np.testing.assert_allclose(CODECS[name](once, grid, 300).reconstruction, once, atol=1e-7)


@pytest.mark.parametrize("name", list(CODECS))
def test_a_constant_stays_itself(name, grid):
    coded = CODECS[name](np.full(grid.shape, 3.25), grid, 20)
    np.testing.assert_allclose(coded.reconstruction, 3.25, atol=1e-7)


@pytest.mark.parametrize("codec", [dct_cube, dct_ball])
def test_a_low_cosine_in_mm_is_kept_exactly_and_a_high_one_is_lost(codec, grid):
    offset_mm = centres_mm(grid).numpy()[..., 1] - grid.bounds_mm[0, 1]  # from the outer face
    low = np.cos(2 * np.pi * offset_mm * 2 / (2 * grid.extent_mm[1]))
    high = np.cos(2 * np.pi * offset_mm * 20 / (2 * grid.extent_mm[1]))
    np.testing.assert_allclose(codec(low, grid, 200).reconstruction, low, atol=1e-12)
    np.testing.assert_allclose(codec(high, grid, 200).reconstruction, 0, atol=1e-12)


def test_the_ball_is_round_in_cycles_per_mm_not_in_voxels(rng):
    grid = Grid.from_spacing((30, 30, 10), (1.0, 1.0, 3.0))  # one extent, three times the voxel
    coded = dct_ball(rng.normal(size=grid.shape), grid, 900)
    kept = np.argwhere(np.abs(fft.dctn(coded.reconstruction, norm="ortho")) > 1e-9)
    reach_per_mm = kept.max(axis=0) / (2 * np.asarray(grid.extent_mm))
    assert reach_per_mm[0] == reach_per_mm[1]
    assert kept[:, 2].max() == 9  # a thick slice's few frequencies are all low
    radius = np.linalg.norm(kept / (2 * np.asarray(grid.extent_mm)), axis=1)
    everything = np.sort(np.sqrt(sum(f**2 for f in frequencies_per_mm(grid))).ravel())
    np.testing.assert_allclose(np.sort(radius), everything[:900], atol=1e-12)


def test_the_ball_beats_the_cube_and_the_oracle_beats_both_on_scan_like_spectra(grid, rng):
    for _ in range(3):
        data = scan_like(grid, rng)
        ball, cube, best = (
            squared_error(c, data, grid, 600) for c in (dct_ball, dct_cube, dct_best)
        )
        assert best < ball < cube


def test_least_squares_never_loses_to_interpolation_on_the_same_coarse_grid(grid, rng):
    for data in (rng.normal(size=grid.shape), scan_like(grid, rng)):
        assert squared_error(bspline, data, grid, 500) <= squared_error(cubic, data, grid, 500)


def test_spline_projection_error_is_orthogonal_to_what_it_can_build(grid, rng):
    data, other = rng.normal(size=(2, *grid.shape))
    error = data - bspline(data, grid, 400).reconstruction
    built = bspline(other, grid, 400).reconstruction
    assert abs((error * built).sum()) < 1e-6 * np.linalg.norm(error) * np.linalg.norm(built)


def test_spline_reproduces_a_cubic_polynomial_in_the_interior():
    grid = Grid.from_spacing((200, 2, 2), (1.0, 30.0, 30.0))
    x = np.linspace(-1, 1, 200)
    data = np.broadcast_to((1 - 2 * x + 3 * x**2 + 4 * x**3)[:, None, None], grid.shape)
    coded = bspline(data, grid, 4 * 100)
    assert coded.numbers_kept == 4 * 100
    inner = slice(88, 112)  # the mirrored edges are felt, ever less, some 40 coefficients in
    np.testing.assert_allclose(coded.reconstruction[inner], data[inner], atol=1e-7)


def test_coarse_grid_has_one_pitch_in_mm_and_gives_thick_slices_to_the_other_axes():
    assert coarse_shape(Grid.from_spacing((182, 218, 182), 1.0), 8 * 46 * 55 * 46) == (92, 110, 92)
    thick = Grid.from_spacing((320, 320, 39), (0.72, 0.72, 3.0))
    sizes = coarse_shape(thick, 8 * 58 * 58 * 30)
    assert sizes[2] == 39 and sizes[0] == sizes[1] == 144
    assert coarse_shape(thick, 10**9) == thick.shape


@pytest.mark.parametrize("n", [5, 77, 300, 1234, 4000])
def test_coarse_grid_is_never_smaller_than_asked_nor_larger_than_the_fine_one(n, grid):
    sizes = coarse_shape(grid, n)
    assert math.prod(sizes) >= n
    assert all(1 <= m <= f for m, f in zip(sizes, grid.shape, strict=True))


def test_bad_input_is_one_sentence(grid):
    data = np.zeros(grid.shape)
    with pytest.raises(InputError, match="at least one number, not 0"):
        dct_ball(data, grid, 0)
    with pytest.raises(InputError, match="its grid"):
        bspline(data[1:], grid, 10)
