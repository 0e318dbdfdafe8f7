"""Small experiments on what a network learns first: toy models, one loop that fits them.

The released model uses nothing of this. A page and its tests fit these models to signals
whose frequencies are known, or race the three resampling operators on small crops.
Positions are in box widths, 0 to 1 along each axis, unless a name says mm.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise, product
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from medil.grid import Grid, centres_mm
from medil.layers.bases import cubic_bspline, local_fourier
from medil.layers.blocks import ResidualBlock
from medil.layers.pointwise import LiteralLTE
from medil.layers.projection import analyse, least_squares, synthesise, synthesise_points
from medil.volume import Volume


def positions(shape: Sequence[int]) -> Tensor:
    """Centres of the cells that divide a box evenly: [Q, dims], 0 to 1, the last axis fastest.

    Example:
        >>> positions((2,)).tolist()
        [[0.25], [0.75]]
    """
    axes = [(torch.arange(n) + 0.5) / n for n in shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, -2)


def waves(x: Tensor, cycles: Sequence[int]) -> Tensor:
    """Sines of amplitude 1 at positions [...], added; each with a phase, so that no peaks line up.

    `cycles` are whole cycles over the box.
    """
    return sum(torch.sin(2 * math.pi * n * x + i) for i, n in enumerate(cycles))  # type: ignore


def recovered(estimate: Tensor, truth: Tensor, cycles: int) -> float:
    """The share of one Fourier coefficient of the truth [Q] that an estimate [Q] has, in phase.

    Samples divide the box evenly, and the truth has the coefficient of so many whole `cycles`.

    Returns:
        Re(E conj(T)) / |T|^2: 1 when it is there whole, 0 when it is missing.
    """
    ours, whole = (torch.fft.rfft(values.double())[cycles] for values in (estimate, truth))
    return float((ours * whole.conj()).real / whole.abs().square())


class FourierFeatures(nn.Module):
    """[cos 2 pi B x, sin 2 pi B x] with fixed random B (Tancik et al. 2020, Sec. 4).

    The standard deviation of B's entries is `scale`, in cycles over the box.
    """

    def __init__(
        self, dims: int, n_frequencies: int, scale: float, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.frequencies: Tensor
        drawn = scale * torch.randn(dims, n_frequencies, generator=generator)
        self.register_buffer("frequencies", drawn)

    def forward(self, x: Tensor) -> Tensor:  # [Q, dims] -> [Q, 2 n_frequencies]
        angle = 2 * math.pi * x @ self.frequencies
        return torch.cat([angle.cos(), angle.sin()], dim=-1)


class LocalTexture(nn.Module):
    """LTE's idea without its encoder: amplitudes on a grid of cells, times local waves.

    f(x) = sum over the cells n near x of sum_j a_j(n) phi_j(x - p_n), phi of
    `medil.layers.bases.local_fourier` along each axis: (2 K + 1)^dims functions of up to K / 2
    cycles per cell, K `harmonics`. The amplitudes are free numbers here; in the autoencoder a
    network predicts them.
    """

    def __init__(self, n_cells: Sequence[int], harmonics: int) -> None:
        super().__init__()
        self.n_cells, self.basis = tuple(n_cells), local_fourier(harmonics)
        n_functions = self.basis.n_functions ** len(self.n_cells)
        self.amplitudes = nn.Parameter(torch.zeros(*self.n_cells, n_functions))

    def forward(self, x: Tensor) -> Tensor:  # [Q, dims] -> [Q, 1]
        sizes = torch.tensor(self.n_cells, device=x.device)
        index = x * sizes - 0.5  # in cells; cell n's centre is at n
        first = index.floor().long()
        total = x.new_zeros(len(x))
        for step in product((0, 1), repeat=len(self.n_cells)):
            node = first + torch.tensor(step, device=x.device)
            values = self._functions(index - node)
            cell = torch.minimum(node.clamp(min=0), sizes - 1)
            total = total + (self.amplitudes[cell.unbind(-1)] * values).sum(-1)
        return total[:, None]

    def _functions(self, delta: Tensor) -> Tensor:  # [Q, dims] -> [Q, J^dims]
        per_axis = self.basis.value(delta)
        values = per_axis[:, 0]
        for axis in range(1, per_axis.shape[1]):
            values = (values[:, :, None] * per_axis[:, axis, None]).flatten(1)
        return values


def start(network: nn.Module, generator: torch.Generator) -> nn.Module:
    """Initialise every layer with non-zero weights after He et al. (2015), from one generator."""
    for layer in network.modules():
        if isinstance(layer, (nn.Linear, nn.Conv3d)) and layer.weight.any():
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
            if layer.bias is not None:
                bound = 1 / math.sqrt(layer.weight[0].numel())
                nn.init.uniform_(layer.bias, -bound, bound, generator=generator)
    return network


def relu_network(features_in: int, hidden: int, generator: torch.Generator) -> nn.Module:
    """Three hidden layers and one output, with seeded weights."""
    widths = [features_in, hidden, hidden, hidden]
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return start(nn.Sequential(*layers, nn.Linear(hidden, 1)), generator)


def fourier_network(
    dims: int, scale: float, hidden: int, generator: torch.Generator
) -> nn.Sequential:
    """`FourierFeatures` with hidden / 2 frequencies, then the same network as without."""
    features = FourierFeatures(dims, hidden // 2, scale, generator)
    return nn.Sequential(features, relu_network(hidden, hidden, generator))


class Rival(NamedTuple):
    """A function of position to be trained, and the learning rate that suits it."""

    model: nn.Module
    learning_rate: float


def rivals(
    n_cells: Sequence[int], scale: float, hidden: int, generator: torch.Generator
) -> dict[str, Rival]:
    """The functions of position that the page compares: plain MLP, Fourier features, local Fourier.

    Our choice: learning rates are the best of three for each in trials on one signal. The Fourier
    features' frequencies spread by `scale` cycles over the box.
    """
    dims = len(n_cells)
    return {
        "plain MLP": Rival(relu_network(dims, hidden, generator), 3e-3),
        "Fourier features": Rival(fourier_network(dims, scale, hidden, generator), 3e-3),
        "local Fourier": Rival(LocalTexture(n_cells, harmonics=2), 3e-2),
    }


class Snapshot(NamedTuple):
    """A model at one moment of its training."""

    step: int
    time_s: float  # CPU time of the training steps so far
    value: Tensor  # what `look` returned


def fit(
    model: nn.Module,
    loss: Callable[[int], Tensor],
    look: Callable[[], Tensor],
    look_at: Iterable[int],
    learning_rate: float,
) -> list[Snapshot]:
    """Adam with a cosine to zero, up to the last step to look at; the model is trained in place.

    Args:
        model: What is trained.
        loss: Takes the step's number to the scalar to lower.
        look: Called without gradients after the steps in `look_at`.
        look_at: Steps after which to look; the largest one ends the training.
        learning_rate: At the start.

    Returns:
        One snapshot for each step looked at, in order. CPU time is the process's, so a
        busy machine does not change it.
    """
    wanted = sorted(set(look_at))
    adam = torch.optim.Adam(model.parameters(), learning_rate, betas=(0.9, 0.99))
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(adam, max(1, wanted[-1]))
    snapshots, spent_s = [], 0.0
    for step in range(wanted[-1] + 1):
        if step > 0:
            begin = time.process_time()
            adam.zero_grad()
            loss(step).backward()
            adam.step()
            cosine.step()
            spent_s += time.process_time() - begin
        if step in wanted:
            with torch.no_grad():
                snapshots.append(Snapshot(step, spent_s, look()))
    return snapshots


def fit_points(
    rival: Rival,
    x: Tensor,
    values: Tensor,
    look_at: Iterable[int],
    batch: int,
    generator: torch.Generator,
) -> list[Snapshot]:
    """Fit a function of positions x [Q, dims] to values [Q], a random batch of them at each step.

    A snapshot's value is the model at all of `x`, [Q]; `look_at` as in `fit`.
    """
    model = rival.model

    def loss(step: int) -> Tensor:
        some: Any = slice(None)
        if batch < len(x):
            some = torch.randint(len(x), (batch,), generator=generator)
        error: Tensor = model(x[some])[:, 0] - values[some]
        return error.square().mean()

    return fit(model, loss, lambda: model(x)[:, 0], look_at, rival.learning_rate)


# The race in three dimensions


class Crop(NamedTuple):
    """A block of voxels, and a feature grid that lies at a random phase to them."""

    values: Tensor  # [1, 1, D, H, W]
    voxels: Grid
    nodes: Grid


def random_crop(
    data: Tensor, grid: Grid, side_vox: int, pitch_mm: float, generator: torch.Generator
) -> Crop:
    """A cube of voxels and feature cells around it, never twice at the same phase.

    Feature cells that coincide with voxels flatter interpolation, so they are shifted by
    up to half a cell along each axis; they reach at least half a cell beyond the voxels.
    """
    room = [n - side_vox + 1 for n in data.shape]
    corner = [int(torch.randint(n, (1,), generator=generator)) for n in room]
    block = tuple(slice(a, a + side_vox) for a in corner)
    voxels = grid.crop(corner, (side_vox,) * 3)
    shift_mm = (torch.rand(3, dtype=torch.float64, generator=generator) - 0.5) * pitch_mm
    inner = voxels.covering(pitch_mm)
    nodes = inner.crop((-1, -1, -1), [n + 2 for n in inner.shape])
    moved = nodes.shifted(nodes.directions @ shift_mm.numpy())
    return Crop(data[block][None, None], voxels, moved)


class Renderer(nn.Module):
    """Voxels to features on a coarse grid, and through one operator back to voxels.

    The extractor is the same whatever the operator: local Fourier analysis onto the
    feature grid, a convolution, a residual block, and `channels` numbers a cell, which go into
    the operator; 1 comes out.
    """

    def __init__(
        self, operator: nn.Module, channels: int, hidden: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.basis = local_fourier(1)
        self.extractor = nn.Sequential(
            nn.Conv3d(self.basis.n_functions**3, hidden, 3, padding=1),
            ResidualBlock(hidden),
            nn.Conv3d(hidden, channels, 1),
        )
        self.operator = operator
        start(self, generator)
        if isinstance(operator, LiteralLTE):
            # Waves that turn fast with the features hardly learn in a short run.
            with torch.no_grad():
                operator.frequency.weight.mul_(0.3)

    def forward(self, crop: Crop) -> Tensor:
        """A crop, back as [1, 1, D, H, W]."""
        analysed = analyse(crop.values, self.basis, crop.voxels, crop.nodes)
        features = self.extractor(analysed.flatten(1, 4))
        rendered: Tensor = self.operator(features, crop.nodes, crop.voxels)
        return rendered


def race(
    renderer: Renderer,
    training: Callable[[], Crop],
    held_out: Sequence[Crop],
    look_at: Iterable[int],
    learning_rate: float,
) -> list[Snapshot]:
    """Train a renderer on crops, in place; look at its mean squared error on held-out others.

    A snapshot's value is the mean over the held-out crops, a scalar; `look_at` as in `fit`.
    """

    def loss(step: int) -> Tensor:
        crop = training()
        error: Tensor = renderer(crop) - crop.values
        return error.square().mean()

    def look() -> Tensor:
        errors = [(renderer(crop) - crop.values).square().mean() for crop in held_out]
        return torch.stack(errors).mean()

    return fit(renderer, loss, look, look_at, learning_rate)


def spline_error(crop: Crop, channels: int, pitch_mm: float, ridge: float = 1e-3) -> float:
    """Mean squared error of cubic B-splines, by least squares, that keep no more numbers per mm^3.

    `channels` numbers for each cell of `pitch_mm` are what the operators of the race keep.
    """
    per_axis = int(crop.voxels.extent_mm[0] * channels ** (1 / 3) / pitch_mm + 1e-9)
    coarse = crop.voxels.resized((per_axis,) * 3)
    kept = least_squares(crop.values.double(), cubic_bspline(), crop.voxels, coarse, ridge)
    rebuilt = synthesise(kept[:, :, None, None, None], cubic_bspline(), coarse, crop.voxels)
    return float((rebuilt - crop.values).square().mean())


# Large voxels


def read_both_ways(volume: Volume, coarse: Grid) -> tuple[Volume, Volume]:
    """A volume, linear between its centres, read on coarser voxels: at centres, and averaged."""
    values = volume.data.double()[None, None, None, None, None]
    hat, points = local_fourier(0), centres_mm(coarse).reshape(-1, 3)
    at_points = synthesise_points(values, hat, volume.grid, points)
    averages = synthesise(values, hat, volume.grid, coarse)
    shape = coarse.shape
    return Volume(at_points.reshape(shape), coarse), Volume(averages.reshape(shape), coarse)
