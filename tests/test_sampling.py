"""Training steps: native blocks under random latent grids, each a function of its generator."""

import numpy as np
import pytest
import torch

from medil.errors import InputError
from medil.grid import Grid, centres_mm
from medil.sampling import coarser, global_step, patch_step, pick, prepare_scan, random_phase
from medil.volume import Volume

SPACING_MM = (1.0, 1.5, 3.0)


@pytest.fixture
def scan():
    """A ramp in a box of air, so that a block's values say where it was cut."""
    data = torch.zeros(24, 20, 12)
    data[4:-4, 4:-4, 2:-2] = torch.rand(16, 12, 8, generator=torch.Generator().manual_seed(0)) + 1
    return prepare_scan(Volume(data, Grid.from_spacing(data.shape, SPACING_MM)))


def test_a_patch_holds_native_voxels_inside_its_latent_grid(scan):
    step = patch_step([scan], 4.0, 12.0, 3, coarser_share=0.0, rng=np.random.default_rng(1))
    assert step.grid.spacing_mm == pytest.approx(SPACING_MM)
    assert step.x.shape == (3, 1, 12, 8, 4)
    low, high = step.latent_grid.bounds_mm
    assert (low <= step.grid.bounds_mm[0] + 1e-9).all()
    assert (high >= step.grid.bounds_mm[1] - 1e-9).all()
    assert step.latent_grid.spacing_mm == pytest.approx((4.0, 4.0, 4.0))


def test_the_phase_between_voxels_and_latent_cells_is_uniform():
    grid = Grid.from_spacing((12, 8, 4), SPACING_MM)
    rng = np.random.default_rng(0)
    cells = [random_phase(grid, 4.0, [12.0] * 3, rng) for _ in range(500)]
    offsets_mm = np.array([grid.bounds_mm[0] - cell.bounds_mm[0] for cell in cells])
    assert offsets_mm.min() >= 0
    assert offsets_mm.max() <= 4
    np.testing.assert_allclose(offsets_mm.mean(axis=0), 2.0, atol=0.2)


def test_a_whole_volume_step_keeps_the_box_at_larger_voxels(scan):
    step = global_step([scan], 4.0, 12.0, np.random.default_rng(2))
    native = Grid.from_spacing(scan.data.shape, scan.spacing_mm)
    np.testing.assert_allclose(step.grid.corners_mm, native.corners_mm, atol=1e-9)
    assert min(step.grid.spacing_mm) > min(SPACING_MM)
    assert step.x.mean().item() == pytest.approx(scan.data.mean().item(), rel=0.05)


def test_one_generator_draws_one_step(scan):
    first, again, other = (
        patch_step([scan], 4.0, 12.0, 2, 0.5, np.random.default_rng(seed)) for seed in (7, 7, 8)
    )
    assert torch.equal(first.x, again.x)
    assert first.latent_grid == again.latent_grid
    assert first.latent_grid != other.latent_grid


def test_coarser_voxels_of_a_ramp_are_the_ramp_at_their_centres():
    grid = Grid.from_spacing((12, 8, 4), SPACING_MM, origin_mm=(5.0, -2.0, 1.0))
    slope = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)
    x, larger = coarser((centres_mm(grid) @ slope)[None, None], grid, (2, 2, 2))
    torch.testing.assert_close(x[0, 0], centres_mm(larger) @ slope)
    assert larger.spacing_mm == pytest.approx((2.0, 3.0, 6.0))


def test_scans_are_drawn_by_weight(scan):
    heavy = prepare_scan(Volume(scan.data, Grid.from_spacing(scan.data.shape, 1.0)), weight=3.0)
    rng = np.random.default_rng(0)
    share = np.mean([pick([scan, heavy], rng) is heavy for _ in range(1000)])
    assert share == pytest.approx(0.75, abs=0.05)


def test_blocks_surround_tissue(scan):
    rng = np.random.default_rng(4)
    steps = [patch_step([scan], 4.0, 6.0, 1, 0.0, rng) for _ in range(30)]
    assert all(step.x.max() > 0.1 for step in steps)


def test_a_scan_of_air_alone_is_refused():
    with pytest.raises(InputError):
        prepare_scan(Volume(torch.zeros(4, 5, 6), Grid.from_spacing((4, 5, 6), 1.0)))
