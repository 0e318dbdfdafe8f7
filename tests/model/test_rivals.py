"""Every arm of the comparison: geometry, precision, gradients, and that it can learn."""

import builtins
from dataclasses import replace

import pytest
import torch

from eval.arms.catalogue import ARMS, LEARNED, all_learned
from medil.config import ModelConfig
from medil.errors import InputError
from medil.grid import Grid, centres_mm
from medil.model.autoencoder import MedIL
from medil.model.rivals import ConvAE, ResizingAE, between, build

THICK = Grid.from_spacing((17, 15, 7), (1.0, 1.0, 3.0), (1, 2, 3)).rotated((1, 2, 3), 17)
RIVALS = [name for name, arm in ARMS.items() if arm.architecture != "medil"]
# On top of the splines only what they cannot hold is left: these halve it in sixty steps, and
# any other arm has to learn something.
FAST = ("integrated", "integrated-content", "fixed-mlp", "literal", "subpixel", "integrated-j5",
        "literal-both")  # fmt: skip
every_arm = pytest.mark.parametrize("name", ARMS)
every_rival = pytest.mark.parametrize("name", RIVALS)


def small(name) -> ModelConfig:
    """The arm in a size for tests."""
    return replace(
        ARMS[name], width_encoder=8, width_latent=16, width_fine=8, depth_encoder=1,
        depth_latent=1, depth_fine=1, frequencies=6, hidden=16,
    )  # fmt: skip


def awake(name, seed=0):
    """The arm, its silent layers given something to say."""
    torch.manual_seed(seed)
    arm = build(small(name)).eval()
    for weight in arm.parameters():
        if not weight.any():
            torch.nn.init.normal_(weight, std=0.05)
    return arm


def blobs(grid, batch=1):
    points = centres_mm(grid)
    waves = torch.sin(points[..., 0] / 5) + torch.cos(points[..., 1] / 6 + points[..., 2] / 7)
    one = (0.5 + 0.15 * waves).float()
    return torch.stack([one * (1 - 0.2 * n) for n in range(batch)])[:, None]


def phase(grid):
    """A latent grid at no special phase."""
    return grid.covering(4.0).shifted((0.37, -0.81, 0.22))


def there_and_back(arm, x, grid, latent_grid, target):
    mean, _ = arm.encode_tensor(x, grid, latent_grid)
    return arm.decode_tensor(mean, latent_grid, target)


@every_arm
@torch.no_grad()
def test_thick_slices_in_a_batch_go_through_and_batch_equals_loop(name):
    arm, x, latent_grid = awake(name), blobs(THICK, batch=2), phase(THICK)
    target = THICK.with_spacing((1.3, 0.9, 1.1))
    together = there_and_back(arm, x, THICK, latent_grid, target)
    apart = torch.cat([there_and_back(arm, one[None], THICK, latent_grid, target) for one in x])
    torch.testing.assert_close(together, apart, atol=1e-4, rtol=0)
    assert together.shape == (2, 1, *target.shape)


@every_arm
def test_reduced_precision_trains_every_weight(name):
    arm, x, latent_grid = awake(name), blobs(THICK, batch=2), phase(THICK)
    noise = torch.zeros(2, 8, *latent_grid.shape)
    with torch.autocast("cpu", torch.bfloat16):
        estimate, mean, log_var = arm(x, THICK, latent_grid, THICK, noise)
    assert estimate.dtype == mean.dtype == log_var.dtype == torch.float32
    # A random direction, since a norm's gain gets no gradient from a loss that is all power.
    probe = torch.randn(estimate.shape, generator=torch.Generator().manual_seed(0))
    ((estimate * probe).sum() + log_var.square().sum()).backward()
    for key, weight in arm.named_parameters():
        assert weight.grad is not None and weight.grad.isfinite().all(), key
        assert weight.grad.any(), key


@every_rival
@torch.no_grad()
def test_moving_everything_by_the_same_mm_changes_nothing(name):
    arm, x, latent_grid, move = awake(name), blobs(THICK), phase(THICK), (31.0, -7.7, 2.2)
    target = THICK.with_spacing(1.4)
    here = there_and_back(arm, x, THICK, latent_grid, target)
    moved = [grid.shifted(move) for grid in (THICK, latent_grid, target)]
    torch.testing.assert_close(there_and_back(arm, x, *moved), here, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", [n for n in ARMS if not n.endswith(LEARNED)])
@torch.no_grad()
def test_untrained_an_arm_with_the_shortcut_is_the_shortcut(name):
    torch.manual_seed(0)
    arm, x, latent_grid = build(small(name)).eval(), blobs(THICK), phase(THICK)
    mean, _ = arm.encode_tensor(x, THICK, latent_grid)
    torch.testing.assert_close(mean, arm.splines.project(x, THICK, latent_grid))
    target = THICK.with_spacing(1.0).crop((2, 3, 4), (9, 8, 10))
    assert (arm.decode_tensor(mean, latent_grid, target) - blobs(target)).abs().max() < 0.02


@every_arm
def test_an_arm_overfits_one_patch(name):
    torch.manual_seed(0)
    grid = Grid.from_spacing((12, 11, 10), 1.0)
    arm, latent_grid = build(small(name)), phase(grid)
    x = (blobs(grid) > 0.5).float()  # sharp edges: beyond the closed form
    noise = torch.zeros(1, 8, *latent_grid.shape)
    optimiser, losses = torch.optim.Adam(arm.parameters(), 3e-3), []
    for _ in range(60):
        with torch.autocast("cpu", torch.bfloat16):
            estimate, _, _ = arm(x, grid, latent_grid, grid, noise)
        loss = (estimate - x).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < (0.5 if name in FAST or all_learned(name) else 0.98) * losses[0]


def test_build_follows_the_architecture():
    kinds = {name: type(build(small(name))) for name in ("integrated", "conv-1mm", "resizing")}
    assert kinds == {"integrated": MedIL, "conv-1mm": ConvAE, "resizing": ResizingAE}


@pytest.mark.parametrize(
    ("working_mm", "pitch_mm"), [(1.0, 1.0), (1.5, 4 / 3), (2.0, 2.0), (0.3, 1.0), (5.0, 4.0)]
)
def test_the_fixed_grid_has_the_nearest_pitch_that_fits_the_latent(working_mm, pitch_mm):
    arm = build(replace(small("conv-1mm"), working_mm=working_mm))
    working = arm.working_grid(phase(THICK))
    assert working.spacing_mm == pytest.approx([pitch_mm] * 3)
    assert working.shares_extent(phase(THICK), tolerance_mm=1e-6)


def test_the_middle_level_lies_half_way_between_voxels_and_latent():
    latent_grid = Grid.from_spacing((8, 8, 8), 4.0)
    middle = between(Grid.from_spacing((32, 32, 10), (1.0, 1.0, 4.0)), latent_grid)
    assert middle.spacing_mm == pytest.approx((2.0, 2.0, 4.0))
    assert middle.shares_extent(latent_grid, tolerance_mm=1e-6)


def test_resizing_is_told_by_how_much():
    arm, latent_grid = awake("resizing"), phase(THICK)
    z = torch.randn(1, 8, *latent_grid.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        told = arm.decode_tensor(z, latent_grid, THICK)
        for resize in arm.grow:
            resize.told.weight.zero_()
        assert (arm.decode_tensor(z, latent_grid, THICK) - told).abs().max() > 1e-4


def test_widths_that_the_norms_cannot_divide_are_refused():
    with pytest.raises(InputError, match="divides"):
        build(replace(small("conv-1mm"), width_encoder=12))


def test_a_missing_monai_is_named_with_its_extra(monkeypatch):
    real = builtins.__import__

    def without_monai(name, *args, **kwargs):
        if name.startswith("monai"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_monai)
    with pytest.raises(InputError, match="rivals"):
        build(small("conv-1mm"))


@every_arm
def test_no_arm_has_more_than_a_tenth_more_or_fewer_weights_than_the_default(name):
    counts = [
        sum(weight.numel() for weight in build(ARMS[key]).parameters())
        for key in (name, "integrated" + LEARNED * name.endswith(LEARNED))
    ]
    assert abs(counts[0] / counts[1] - 1) < 0.1
