"""Patches with a halo give what the whole gives; without one they cannot."""

import pytest
import torch

from eval.patches import rebuilt_by_patches, rebuilt_whole
from medil.autoencoder import MedIL
from medil.config import preset
from medil.errors import InputError
from medil.grid import Grid

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
