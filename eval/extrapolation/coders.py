"""What is compared: trained arms, a release, linear codecs of equal size, interpolation.

Models encode at the block's own phase between voxels and latent cells, as in training. From
a volume's corner, where a released model lays its cells, 1 mm voxels would fill them exactly,
and an arm that works on a 1 mm grid would not have to resample at all.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from eval.arms.catalogue import OWN, Size, sized
from eval.coders import neighbours
from eval.coders.base import SUFFIX, Coder, Interpolation, Kept, codec_coders, release_arm
from eval.extrapolation.blocks import Block
from eval.extrapolation.train import Run
from medil.data.releases import release_path
from medil.grid import Grid
from medil.model.autoencoder import MedIL
from medil.model.base import LatentAutoencoder
from medil.model.tiles import slabs
from medil.model.weights import load_model, weights_sha256
from medil.system.device import network_precision
from medil.volume import Volume

CODECS = ("dct_ball", "bspline", neighbours.NAME)
SLAB_VOXELS = 2**20  # rendered at a time, by models that can
RELEASE, SPLINES = "medil", "medil_splines"
TRUTH = "truth"


@lru_cache(maxsize=2)
def loaded(path: Path) -> LatentAutoencoder:
    """Weights, ready to run on the CPU."""
    return load_model(path)


class BlockCoder(Coder):
    """A coder that has to know which block it encodes."""

    block: Block  # set by `for_block`


def for_block(coder: Coder, block: Block) -> Coder:
    """A copy of a coder that has to know its block; any other coder itself."""
    if isinstance(coder, BlockCoder):
        coder = copy.copy(coder)
        coder.block = block
    return coder


class Truth(BlockCoder):
    """The truth as an arm: its own white surface, and its distance from the scan."""

    name = TRUTH

    def encode(self, volume: Volume) -> Kept:
        """Every voxel counts as kept."""
        return Kept(None, volume.grid.n_voxels)

    def decode(self, kept: Kept, grid: Grid) -> np.ndarray:
        """What the block is on one of its own grids; [D, H, W] float64."""
        volumes = self.block.volumes.values()
        return next(v.data.double().numpy() for v in volumes if v.grid.is_close(grid))


class PhasedCoder(BlockCoder):
    """A model that encodes at a block's own phase, its networks in bfloat16 as in training.

    Args:
        path: Of the weights.
        name: As in the rows.
        run: That trained it, of arms; its seed is no part of the configuration.
        splines_alone: Render the closed form and leave the network out.
    """

    def __init__(
        self, path: Path, name: str, run: Run | None = None, splines_alone: bool = False
    ) -> None:
        model = loaded(path)
        self.path, self.name = path, name
        self.splines_alone, self.seed = splines_alone, run.seed if run else 0
        self.config = asdict(model.config) | {"splines_alone": splines_alone, "phase": "block's"}
        if run:
            self.config |= {"steps": run.steps, run.material: run.count}
        self.weights_sha256 = weights_sha256(model)

    @property
    def encoding(self) -> str:
        """With and without network, the latent is one."""
        return f"latent of {self.path.name}"

    @torch.inference_mode()
    def encode(self, volume: Volume) -> Kept:
        """The latent's mean and its grid; intensities are on the 0 ... 1 scale already."""
        model = loaded(self.path)
        cells = self.block.latent_grid(model.config.latent_spacing_mm)
        with network_precision(torch.device("cpu")):
            mean, _ = model.encode_tensor(volume.data[None, None], volume.grid, cells)
        return Kept((mean, cells), mean[0].numel())

    @torch.inference_mode()
    def decode(self, kept: Kept, grid: Grid) -> np.ndarray:
        """The rendering on any grid; [D, H, W] float64."""
        mean, cells = kept.what
        model = loaded(self.path)
        with network_precision(torch.device("cpu")):
            out = _render(model, mean, cells, grid, self.splines_alone)
        return out.double().numpy()


def _render(
    model: LatentAutoencoder, z: torch.Tensor, cells: Grid, grid: Grid, splines_alone: bool
) -> torch.Tensor:
    """[D, H, W]; MedIL slab by slab, so that an MLP at every voxel fits into memory."""
    if splines_alone:
        return model.splines.render(z, cells, grid)[0, 0]
    if not isinstance(model, MedIL):
        return model.decode_tensor(z, cells, grid)[0, 0].float()
    features = model.decode_features(z)
    planes = max(1, SLAB_VOXELS * grid.shape[0] // grid.n_voxels)
    parts = [
        model.compose(model.render_features(features, cells, slab), z, cells, slab)
        for _, slab in slabs(grid, planes)
    ]
    return torch.cat([part[0, 0] for part in parts])


def arm_coder(run: Run, folder: Path) -> PhasedCoder:
    """A trained arm."""
    return PhasedCoder(run.path(folder), run.name, run)


def release_coders(release: str) -> list[PhasedCoder]:
    """A release, or weights in a file, with and without its network: arms of their own."""
    path, arm = _weights_path(release), release_arm(release)
    return [PhasedCoder(path, arm), PhasedCoder(path, f"{arm}_splines", splines_alone=True)]


def _weights_path(release: str) -> Path:
    return Path(release) if release.endswith(SUFFIX) else release_path(release)


def fixed_coders(sizes: Iterable[Size] = (OWN,)) -> list[Coder]:
    """What learns nothing: codecs of the latents' sizes, and interpolation of every voxel."""
    coders: list[Coder] = []
    for size in dict.fromkeys(sizes):
        for coder in codec_coders(*size, CODECS):
            coder.name = sized(coder.name, size)
            coders.append(coder)
    return [*coders, Interpolation()]


def release_size(release: str) -> Size:
    """The size of a release's latent."""
    config = loaded(_weights_path(release)).config
    return config.latent_spacing_mm, config.latent_channels
