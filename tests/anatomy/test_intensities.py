"""Intensities sharpen tissue shares: borders move to where the scan has them."""

import pytest
import torch

from medil.anatomy.intensities import sharpened
from medil.synth.anatomy import gaussian

SHAPE = (40, 36, 32)


def scene(shading: float = 0.0, noise: float = 0.02):
    """A slab of bright tissue with thin blades, in dark tissue: data, where it is bright, brain."""
    draw = torch.Generator().manual_seed(0)
    bright = torch.zeros(SHAPE, dtype=torch.bool)
    bright[12:28] = True
    bright[:, 8::8, :16] = True  # blades, one voxel wide
    data = torch.where(bright, 0.9, 0.6) + noise * torch.randn(SHAPE, generator=draw)
    slope = torch.linspace(-1, 1, SHAPE[2])
    brain = torch.ones(SHAPE, dtype=torch.bool)
    brain[:3] = brain[-3:] = False
    return data * (1 + shading * slope) * brain, bright & brain, brain


def blurred_shares(bright: torch.Tensor, brain: torch.Tensor) -> torch.Tensor:
    """What a network that sees no blade thinks: [dark, bright]."""
    share = gaussian(bright.float(), 2.5).clamp(0.02, 0.98)
    return torch.stack([1 - share, share]) * brain


def wrong(shares: torch.Tensor, bright: torch.Tensor, brain: torch.Tensor) -> float:
    return ((shares.argmax(0) == 1) != bright)[brain].float().mean().item()


@pytest.mark.parametrize("shading", [0.0, 0.1])
def test_blades_that_a_network_missed_come_back_under_shading_too(shading):
    data, bright, brain = scene(shading)
    shares = blurred_shares(bright, brain)
    after = sharpened(shares, data, brain)
    assert wrong(shares, bright, brain) > 0.03
    assert wrong(after, bright, brain) < 0.1 * wrong(shares, bright, brain)


def test_shares_sum_to_one_in_the_brain_and_are_zero_outside():
    data, bright, brain = scene()
    after = sharpened(blurred_shares(bright, brain), data, brain)
    torch.testing.assert_close(after.sum(0), brain.float())
    same = sharpened(blurred_shares(bright, brain), data, brain, rounds=0)
    torch.testing.assert_close(same, blurred_shares(bright, brain))


def test_where_intensities_say_nothing_the_network_is_believed():
    _, bright, brain = scene()
    shares, flat = blurred_shares(bright, brain), torch.full(SHAPE, 0.7)
    after = sharpened(shares, flat, brain)
    assert wrong(after, shares.argmax(0) == 1, brain) < 0.01


def test_a_class_that_nobody_sees_stays_absent():
    data, bright, brain = scene()
    shares = torch.cat([blurred_shares(bright, brain), torch.zeros(1, *SHAPE)])
    after = sharpened(shares, data, brain)
    assert bool(torch.isfinite(after).all()) and float(after[2].max()) < 1e-3
