"""Sharpen tissue shares by intensity: what a network knows of places, a scan knows of borders.

Each class has a mean and a spread that vary slowly over the brain, which also follows the bias
field. They are estimated from the shares, and the shares from them, in turn: the EM algorithm
with the network's shares as prior, and a mean-field Markov random field that keeps neighbours
alike (Van Leemput et al. 1999, doi:10.1109/42.811270; Ashburner and
Friston 2005, doi:10.1016/j.neuroimage.2005.02.018).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from medil.synth.anatomy import gaussian

ROUNDS = 3
PLACE = 0.5  # power of the network's shares: it is too sure of borders that it misses
NEIGHBOURS, NEIGHBOUR_VOX = 3.0, 0.8  # weight of the shares around a voxel, and how far they lie
BLOCK_VOX = 4  # means and spreads lie on blocks of so many voxels
REACH_MM = 16.0  # standard deviation of the Gaussian over which they are estimated
LEAST_SPREAD = 0.02  # of intensities, white matter near 0.9: what noise alone makes
PRIOR_VOX = 1.3  # weight of a class's mean over the whole brain, in voxels within reach


def sharpened(shares: Tensor, data: Tensor, brain: Tensor, rounds: int = ROUNDS) -> Tensor:
    """Shares of classes after their intensities are taken into account.

    Args:
        shares: [K, D, H, W] float32, a network's; they sum to 1. Voxels of 1 mm.
        data: [D, H, W] float32 intensities.
        brain: [D, H, W] bool: where there are classes at all.
        rounds: Of the EM algorithm; 0 gives the shares themselves.

    Returns:
        [K, D, H, W], 0 outside the brain.
    """
    prior = PLACE * shares.clamp(min=1e-8).log()
    shares = shares * brain
    for _ in range(rounds):
        mean, variance = _moments(shares, data)
        likelihood = -((data - mean) ** 2) / (2 * variance) - 0.5 * variance.log()
        around = torch.stack([gaussian(one, NEIGHBOUR_VOX) for one in shares])
        shares = functional.softmax(prior + likelihood + NEIGHBOURS * around, dim=0) * brain
    return shares


def _moments(shares: Tensor, data: Tensor) -> tuple[Tensor, Tensor]:
    """Local mean and variance of each class's intensities, [K, D, H, W] each."""
    powers = [shares, shares * data, shares * data**2]
    count, first, second = (values.sum((1, 2, 3), keepdim=True) for values in powers)
    everywhere = [first / count.clamp(min=1e-6), second / count.clamp(min=1e-6)]
    weight = PRIOR_VOX / BLOCK_VOX**3
    mass, first, second = map(_spread_out, powers)
    mean = (first + weight * everywhere[0]) / (mass + weight)
    square = (second + weight * everywhere[1]) / (mass + weight)
    variance = (square - mean**2).clamp(min=LEAST_SPREAD**2)
    shape = list(data.shape)
    return _finer(mean, shape), _finer(variance, shape)


def _spread_out(values: Tensor) -> Tensor:
    """[K, D, H, W] averaged over blocks, then over `REACH_MM`."""
    blocks = functional.avg_pool3d(
        values[None], BLOCK_VOX, ceil_mode=True, count_include_pad=False
    )[0]
    return torch.stack([gaussian(one, REACH_MM / BLOCK_VOX) for one in blocks])


def _finer(blocks: Tensor, shape: list[int]) -> Tensor:
    return functional.interpolate(blocks[None], shape, mode="trilinear")[0]
