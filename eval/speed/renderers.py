"""The operators that are timed, with weights and features drawn from a seed.

A silent last layer would let compilers and caches see nothing but zeros, so every layer is
given weights. All work on features at 2 mm and render at 1 mm.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from medil.config import preset
from medil.grid import Grid
from medil.layers.content_lte import plane_waves
from medil.layers.operators import IntegratedLTE, SubPixel
from medil.layers.pointwise import LIIF, FixedMLP, LiteralLTE, PointOperator, Trilinear
from medil.model.autoencoder import MedIL

PITCH_MM, VOXEL_MM = 2.0, 1.0
PLAIN, EAGER = "neighbours", "separable, eager"
Job = Callable[[], Tensor]
Renderer = Callable[[Tensor, Grid, Grid], Tensor]  # features, nodes, voxels


@dataclass(frozen=True)
class Scene:
    """Features on a cube of 2 mm cells, and the cube of 1 mm voxels over it."""

    features: Tensor  # [1, C, n, n, n]
    nodes: Grid
    voxels: Grid

    @classmethod
    def drawn(cls, cells: int, channels: int, device: str = "cpu", seed: int = 0) -> Scene:
        """Normal features on `cells`^3."""
        nodes = Grid.from_spacing((cells,) * 3, PITCH_MM)
        features = torch.randn(
            (1, channels, *nodes.shape), generator=torch.Generator().manual_seed(seed)
        )
        voxels = nodes.resized([round(PITCH_MM / VOXEL_MM) * cells] * 3)
        return cls(features.to(device), nodes, voxels)

    def job(self, operator: Renderer) -> Job:
        """One rendering of the scene."""
        return lambda: operator(self.features, self.nodes, self.voxels)

    @property
    def sizes(self) -> str:
        """``96^3 from 48^3 x 64 channels``."""
        return (
            f"{self.voxels.shape[0]}^3 from {self.nodes.shape[0]}^3 "
            f"x {self.features.shape[1]} channels"
        )


def awake(network: nn.Module, device: str = "cpu", seed: int = 0) -> nn.Module:
    """The network in inference mode, every weight drawn from a seed at constant signal size."""
    generator = torch.Generator().manual_seed(seed)
    for layer in network.modules():
        if isinstance(layer, nn.Conv3d | nn.Linear):
            fan_in = layer.weight[0].numel()
            drawn = torch.randn(layer.weight.shape, generator=generator)
            layer.weight.data.copy_(drawn / fan_in**0.5)
            if layer.bias is not None:
                layer.bias.data.copy_(torch.randn(len(layer.bias), generator=generator) / 10)
    return network.to(device).eval()


def literal(channels: int, frequencies: int = 32, hidden: int = 64, device: str = "cpu"):
    """The layer that naive and fast renderers share."""
    return awake(LiteralLTE(channels, 1, frequencies, hidden), device)


def forms(layer: LiteralLTE) -> dict[str, Renderer]:
    """The forms of literal LTE beside the naive one, by name: same weights, same answer.

    A GPU has the plain form alone; the other one works row by row.
    """
    plain: dict[str, Renderer] = {PLAIN: partial(PointOperator.forward, layer)}
    return plain if layer.amplitude.weight.is_cuda else {**plain, EAGER: layer}


def peers(channels: int, device: str = "cpu") -> dict[str, nn.Module]:
    """Operators with the release's harmonics and hidden width, one channel out."""
    c = preset("tiny").model
    made = {
        "integrated": IntegratedLTE(channels, 1, c.harmonics),
        "subpixel": SubPixel(channels, 1, round(PITCH_MM / VOXEL_MM)),
        "trilinear": Trilinear(channels, 1, c.hidden),
        "fixed-mlp": FixedMLP(channels, 1, plane_waves(c.harmonics), c.hidden),
        "liif": LIIF(channels, 1, c.hidden),
    }
    return {name: awake(operator, device) for name, operator in made.items()}


def closed_form(scene: Scene, device: str = "cpu") -> Job:
    """The release's splines alone on the scene's voxels, from latent cells of 4 mm."""
    config = preset("tiny").model
    model = MedIL(config).to(device)
    cells = [n // config.fine_per_latent for n in scene.nodes.shape]
    latent_grid = scene.nodes.resized(cells)
    z = scene.features.new_zeros(1, config.latent_channels, *cells).normal_()
    return lambda: model.splines.render(z, latent_grid, scene.voxels)
