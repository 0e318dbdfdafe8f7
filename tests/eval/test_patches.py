"""Patches with a halo give what the whole gives; without one they cannot."""

import numpy as np
import pytest
import torch

from eval.patch_vs_whole.patches import (
    difference_percent,
    drift_percent,
    rebuilt_by_patches,
    rebuilt_whole,
    seam_ratio,
)
from medil.config import preset
from medil.errors import InputError
from medil.grid import Grid
from medil.model.autoencoder import MedIL
from medil.volume import Intensity, Volume

GRID = Grid.from_spacing((64, 16, 16), 1.0, (3.0, -2.0, 5.0))


@pytest.fixture(scope="module")
def model() -> MedIL:
    """A shallow network with weights that do something everywhere."""
    torch.manual_seed(0)
    model = MedIL(preset("test").model).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.005 * torch.randn_like(weight))
    return model


@pytest.fixture(scope="module")
def block() -> torch.Tensor:
    return torch.rand(GRID.shape, generator=torch.Generator().manual_seed(1))


def difference(model, block, halo_mm: float) -> float:
    apart = rebuilt_by_patches(model, block, GRID, 32.0, halo_mm)
    return float((apart - rebuilt_whole(model, block, GRID)).abs().max())


def test_one_patch_is_the_whole(model, block):
    assert torch.equal(
        rebuilt_by_patches(model, block, GRID, 64.0), rebuilt_whole(model, block, GRID)
    )


def test_the_difference_vanishes_with_the_halo_and_is_there_without(model, block):
    without, some, more, all_there_is = (difference(model, block, h) for h in (0, 8, 16, 32))
    assert without > 5 * some > 25 * more > 0
    assert all_there_is == 0.0


def test_patches_that_do_not_divide_the_block_leave_no_gap(model, block):
    apart = rebuilt_by_patches(model, block, GRID, 24.0, 24.0)
    torch.testing.assert_close(apart, rebuilt_whole(model, block, GRID), atol=2e-3, rtol=0)


def test_sides_that_cut_through_latent_cells_are_refused(model, block):
    with pytest.raises(InputError, match="a side of 30 mm"):
        rebuilt_by_patches(model, block, GRID, 30.0)


def test_the_splines_alone_are_the_models_own_without_its_network(model, block):
    latent = model.encode(Volume(block, GRID), Intensity(0.0, 1.0))
    expected = model.decode(latent, linear_only=True).data
    torch.testing.assert_close(rebuilt_whole(model, block, GRID, linear_only=True), expected)


def test_a_patch_on_its_own_scale_is_that_patch_as_a_file(model, block):
    uneven = block * torch.linspace(0.2, 1, 64)[:, None, None]
    apart = rebuilt_by_patches(model, uneven, GRID, 32.0, own_scale=True)
    half = Volume(uneven[32:], GRID.crop((32, 0, 0), (32, 16, 16)))
    torch.testing.assert_close(apart[32:], model.decode(model.encode(half)).data)


def test_air_has_no_scale_of_its_own(model, block):
    dark = block.clone()
    dark[:32] = 0
    apart = rebuilt_by_patches(model, dark, GRID, 32.0, own_scale=True)
    plain = rebuilt_by_patches(model, dark, GRID, 32.0)
    assert torch.equal(apart[:32], plain[:32]) and not torch.equal(apart[32:], plain[32:])


@pytest.mark.parametrize("step", [0.0, 0.5, 3.0])
def test_a_step_at_each_face_of_a_ramp_is_its_seam(step):
    ramp = np.broadcast_to(np.arange(24.0)[:, None, None], (24, 4, 4))
    stairs = ramp + step * (np.arange(24) // 8)[:, None, None]
    everywhere = np.ones(ramp.shape, dtype=bool)
    assert seam_ratio(ramp, stairs, everywhere, (8, 9, 9)) == pytest.approx(1 + step)
    assert seam_ratio(ramp, 3 * ramp, everywhere, (8, 9, 9)) == pytest.approx(1)  # no seam


def test_without_a_face_in_the_mask_there_is_no_seam_to_measure():
    ramp = np.broadcast_to(np.arange(24.0)[:, None, None], (24, 4, 4))
    assert np.isnan(seam_ratio(ramp, ramp, np.ones(ramp.shape, dtype=bool), (24, 4, 4)))


def test_an_offset_is_all_drift_and_a_chequerboard_none():
    mask, whole = np.ones((16, 16, 16), dtype=bool), np.zeros((16, 16, 16))
    board = 1 - 2 * (np.indices(mask.shape).sum(0) % 2)
    for apart, drift in ((whole + 0.02, 1.0), (whole + 0.02 * board, 0.0)):
        assert difference_percent(whole, apart, mask, peak=2.0) == pytest.approx(1)
        assert drift_percent(whole, apart, mask, (1, 1, 1), 2.0) == pytest.approx(drift, abs=0.02)
