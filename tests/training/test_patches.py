import numpy as np
import pytest
import torch

from medil.errors import InputError
from medil.grid import Grid, centres_mm
from medil.training.patches import coarser, global_step, patch_step, prepare_scan, random_phase
from medil.volume import Volume


def scan_of(shape=(40, 50, 12), spacing=(1.0, 0.8, 3.0)):
    grid = Grid.from_spacing(shape, spacing)
    inside = (centres_mm(grid) - torch.from_numpy(grid.centre_mm)).norm(dim=-1) < 15
    texture = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    return prepare_scan(Volume(inside * (100 + 50 * texture), grid))


def rng_of(seed):
    return np.random.default_rng(seed)


def step_of(seed, coarser_share=0.0):
    return patch_step([scan_of()], 4.0, 20.0, 2, coarser_share, np.random.default_rng(seed))


def test_a_step_is_a_function_of_its_generator():
    first, again, other = step_of(1), step_of(1), step_of(2)
    assert torch.equal(first.x, again.x) and first.latent_grid == again.latent_grid
    assert first.latent_grid != other.latent_grid


def test_patches_hold_native_voxels_around_tissue():
    for seed in range(20):
        step = step_of(seed)
        assert step.grid.spacing_mm == pytest.approx((1.0, 0.8, 3.0))
        assert max(step.grid.extent_mm) <= 20.0 + 1e-9
        assert (step.x.flatten(1) > 0.02).any(1).all()


def test_the_latent_grid_covers_the_patch_at_every_phase():
    phases = []
    for seed in range(30):
        step = step_of(seed)
        low, high = step.latent_grid.bounds_mm
        assert (low <= step.grid.bounds_mm[0] + 1e-9).all()
        assert (high >= step.grid.bounds_mm[1] - 1e-9).all()
        assert step.latent_grid.shape == (6, 6, 6)  # one shape for every step
        phases.append((step.grid.bounds_mm[0] - low)[0])
    assert min(phases) < 1 and max(phases) > 3  # of 0 ... 4 mm


def test_coarser_voxels_are_averages_and_keep_their_place():
    grid = Grid.from_spacing((8, 6, 7), (1.0, 2.0, 1.5), (5, -3, 2)).rotated((1, 1, 0), 30)
    ramp = centres_mm(grid)[..., 0][None, None]
    x, large = coarser(ramp, grid, (2, 1, 3))
    assert large.spacing_mm == pytest.approx((2.0, 2.0, 4.5))
    torch.testing.assert_close(x[0, 0], centres_mm(large)[..., 0])  # the ramp stays itself in mm


def test_coarser_steps_encode_less_than_they_render():
    steps = [
        patch_step([scan_of((40, 40, 40), (1, 1, 1))], 4.0, 20.0, 1, 1.0, np.random.default_rng(s))
        for s in range(5)
    ]
    for step in steps:
        assert step.grid.n_voxels < step.target_grid.n_voxels
        assert step.target_grid.spacing_mm == pytest.approx((1, 1, 1))


def test_thick_steps_encode_and_render_slices_of_the_asked_thickness():
    scan = scan_of((60, 60, 60), (0.8, 0.8, 0.8))
    seen = set()
    for seed in range(40):
        step = patch_step([scan], 4.0, 40.0, 1, 1.0, rng_of(seed), thick_share=1.0)
        assert step.x is step.target  # a thick slice is not averaged again
        sizes = np.array(step.grid.spacing_mm)
        axis = int(sizes.argmax())
        assert 2.0 - 0.4 <= sizes[axis] <= 6.0 + 0.4
        assert np.delete(sizes, axis) == pytest.approx([0.8, 0.8])
        assert 40 - 0.8 - sizes[axis] < step.grid.extent_mm[axis] <= 40
        seen.add(axis)
    assert seen == {0, 1, 2}

    thick = scan_of((30, 30, 10), (1.0, 1.0, 3.0))
    step = patch_step([thick], 4.0, 20.0, 1, 1.0, rng_of(0), thick_share=1.0)
    assert step.grid.spacing_mm == pytest.approx(thick.spacing_mm)


def test_no_thick_share_draws_as_before():
    scan, draw = scan_of((40, 40, 40), (1, 1, 1)), (4.0, 20.0, 1, 0.5)
    for seed in range(4):
        a, b = (patch_step([scan], *draw, rng_of(seed), **k) for k in ({}, {"thick_share": 0.0}))
        assert torch.equal(a.x, b.x) and a.latent_grid == b.latent_grid


def test_a_global_step_shows_the_whole_head_on_as_many_cells_as_a_patch():
    scan = scan_of()
    step = global_step([scan], 4.0, 20.0, np.random.default_rng(0))
    native_mm = np.array(scan.data.shape) * scan.spacing_mm
    np.testing.assert_allclose(step.grid.extent_mm, native_mm)
    assert step.latent_grid.shape == (6, 6, 6)
    assert step.x.mean().item() == pytest.approx(scan.data.mean().item(), rel=0.02)


def test_random_phase_is_uniform_over_one_cell():
    grid = Grid.from_spacing((10, 10, 10), 1.0)
    lows = [
        random_phase(grid, 4.0, (10, 10, 10), np.random.default_rng(s)).bounds_mm[0]
        for s in range(200)
    ]
    offsets = grid.bounds_mm[0] - np.array(lows)
    assert offsets.min() >= 0 and offsets.max() < 4
    np.testing.assert_allclose(offsets.mean(0), 2.0, atol=0.3)


def test_a_constant_image_is_refused():
    with pytest.raises(InputError, match="constant"):
        prepare_scan(Volume(torch.ones(5, 5, 5), Grid.from_spacing((5, 5, 5), 1.0)))


def test_the_parts_of_a_step_are_the_step():
    step = patch_step([scan_of((40, 40, 40), (1, 1, 1))], 4.0, 20.0, 6, 0, rng_of(0))
    parts = [step.part(k, 3) for k in range(3)]
    for pick in (lambda s: s.x, lambda s: s.target):
        assert torch.equal(torch.cat([pick(part) for part in parts]), pick(step))
    assert all(part.latent_grid == step.latent_grid and len(part.x) == 2 for part in parts)
    with pytest.raises(InputError, match="6 does not fall into 4"):
        step.part(0, 4)


def test_a_global_batch_holds_mirrored_copies_of_one_volume():
    step = global_step([scan_of()], 4.0, 20.0, rng_of(1), batch=8)
    mirrored = [step.x[0].flip([a + 1 for a in range(3) if k >> a & 1]) for k in range(8)]
    which = {next(k for k in range(8) if torch.equal(mirrored[k], x)) for x in step.x}
    assert len(which) > 2
    first = global_step([scan_of()], 4.0, 20.0, rng_of(1))
    assert torch.equal(first.x[0], step.x[0])


def test_a_step_says_which_scan_it_shows():
    volume = Volume(torch.rand(20, 20, 20), Grid.from_spacing((20, 20, 20), 1.0))
    scans = [prepare_scan(volume, name="one"), prepare_scan(volume, 0.0, name="never")]
    names = {patch_step(scans, 4.0, 12.0, 1, 0.0, rng_of(s)).name for s in range(8)}
    assert names == {"one"} and global_step(scans, 4.0, 12.0, rng_of(0)).name == "one"
