"""MedIL: native voxels -> latent grid of fixed pitch in mm -> voxels of any grid.

Only the resampling operators work on native grids; every convolution in between
works on a grid of fixed physical pitch, so one kernel means the same millimetres in every
scan. The networks are written once, for consecutive slabs: training gives them a single
slab, the whole. The closed-form shortcut beside them is in `medil.model.base`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from medil.config import ModelConfig
from medil.grid import Grid
from medil.latent import Latent
from medil.layers.bases import local_fourier
from medil.layers.blocks import (
    Conv3d,
    at_least_float,
    depth_to_space,
    init_weights,
    residual_blocks,
    space_to_depth,
    zero_init,
)
from medil.layers.operators import make_operator
from medil.layers.projection import analyse
from medil.model.base import LatentAutoencoder
from medil.model.budget import SLAB_VOXELS, check_axes, planes_to_encode, stem_nodes
from medil.model.field import Field
from medil.model.streaming_conv import WHOLE, Course, convolve, roll, under, whole_cells
from medil.model.tiles import Block, cuts, support
from medil.system.device import network_precision
from medil.volume import Intensity, Volume, replace_nonfinite, robust_intensity

DECODED_PLANES = 4  # of latents, where all features are wanted: fast, ours
COEFFICIENTS = {"literal": 5, "literal-skip": 9}  # numbers per voxel and frequency in the encoder
WEIGHT_NAMES = {  # part of the network -> its name in weights files
    "encoder.stem": "intake",
    "encoder.fine": "encode_fine",
    "encoder.down": "encode_down",
    "encoder.latent": "encode_latent",
    "encoder.out": "to_latent",
    "decoder.into": "from_latent",
    "decoder.latent": "decode_latent",
    "decoder.up": "decode_up",
    "decoder.fine": "decode_fine",
    "decoder.render": "render",
}


def _renamed(names: Mapping[str, str], key: str) -> str:
    """A parameter's name with the part that it begins with renamed."""
    return next((new + key[len(n) :] for n, new in names.items() if key.startswith(n + ".")), key)


class Stem(nn.Module):
    """Native voxels -> features on the fine grid, the encoder's resampling operator.

    `integrated` analyses the image in the local Fourier functions of the fine grid, each
    averaged over the native voxel, so it is anti-aliased by the same integral as rendering.
    The others convolve at native resolution, as the paper does, and then resample.
    """

    def __init__(self, config: ModelConfig, channels_in: int) -> None:
        super().__init__()
        self.kind, self.width = config.encoder_operator, config.width_encoder
        self.basis = local_fourier(config.harmonics)
        self.bytes_per_voxel = 0  # memory of feature maps at native resolution
        self.halo_nodes = 1  # extra nodes on either side
        self.reach = 0  # voxels around a node that it needs
        if self.kind == "integrated":
            self.mix = nn.Conv3d(channels_in * self.basis.n_functions**3 + 3, self.width, 1)
        else:
            self.stem = nn.Sequential(
                Conv3d(channels_in, self.width, 3, padding=1), *residual_blocks(self.width, 1)
            )
            operator: Any = make_operator(config, self.kind, self.width, self.width, encodes=True)
            self.operator = operator
            self.mix = nn.Conv3d(self.width + 3, self.width, 1)
            coefficients = COEFFICIENTS.get(self.kind, 0) * config.frequencies
            self.bytes_per_voxel = 4 * (6 * self.width + coefficients)
            self.halo_nodes, self.reach = 0, 3 + operator.reach  # 3 convolutions in the stem

    def forward(self, images: Tensor, voxels: Grid, nodes: Grid) -> Tensor:
        """[B, C, D, H, W] on `voxels` -> [B, width, d, h, w] on `nodes`."""
        if self.kind == "integrated":
            features = analyse(images, self.basis, voxels, nodes).flatten(1, 4)
        else:
            features = self.operator(self.stem(images), voxels, nodes)
        cells = torch.tensor(voxels.spacing_mm) / torch.tensor(nodes.spacing_mm)
        weight, of_size = self.mix.weight.flatten(1).split([features.shape[1], 3], dim=1)
        bias = self.mix.bias + of_size @ cells.log().to(of_size)  # the same in every cell
        rows = functional.linear(features.flatten(2).transpose(1, 2), weight, bias)  # [B, N, width]
        return rows.flatten().view(len(images), *nodes.shape, -1).movedim(-1, 1)


class Encoder(nn.Module):
    """Images on voxels -> 2 C numbers per latent cell: the stem, a fine level, the latent level."""

    def __init__(self, config: ModelConfig, channels_in: int) -> None:
        super().__init__()
        c, self.factor = config, config.fine_per_latent
        self.stem = Stem(config, channels_in)
        self.fine = residual_blocks(c.width_encoder, c.depth_encoder)
        self.down = Conv3d(c.width_encoder * self.factor**3, c.width_latent, 1)
        self.latent = residual_blocks(c.width_latent, c.depth_encoder)
        out = Conv3d(c.width_latent, 2 * c.latent_channels, 1)
        self.out = zero_init(out) if c.closed_form else out

    def forward(self, slabs: Iterator[Tensor], course: Course) -> Iterator[Tensor]:
        """Slabs of the stem's features on the fine grid -> slabs [B, 2 C, d, h, w]."""
        h = whole_cells(roll(self.fine, slabs, course), course, self.factor)
        h = (self.down(course.laid(space_to_depth(x, self.factor))) for x in h)
        return map(self.out, roll(self.latent, h, course))


class Decoder(nn.Module):
    """Latents -> features on the fine grid, and the operator that renders them.

    Attributes:
        reach_cells: How far beyond its faces a rendered voxel looks, in latent cells.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        c, self.factor = config, config.fine_per_latent
        self.into = Conv3d(c.latent_channels, c.width_latent, 3, padding=1)
        self.latent = residual_blocks(c.width_latent, c.depth_latent)
        self.up = Conv3d(c.width_latent, c.width_fine * self.factor**3, 1)
        self.fine = residual_blocks(c.width_fine, c.depth_fine)
        render: Any = make_operator(config, c.operator, c.width_fine, 1)
        self.render = render
        fine_cells = render.reach + 2 * c.depth_fine
        self.reach_cells = 1 + 2 * c.depth_latent + math.ceil(fine_cells / self.factor)

    def forward(self, slabs: Iterator[Tensor], course: Course) -> Iterator[Tensor]:
        """Slabs of latents [B, C, d, h, w] -> slabs [B, width_fine, f d, f h, f w] of features."""
        h = roll(self.latent, convolve(self.into, slabs, course), course)
        h = (course.laid(depth_to_space(self.up(x), self.factor)) for x in h)
        return roll(self.fine, h, course)


class MedIL(LatentAutoencoder):
    """The autoencoder: an encoder, a decoder and, beside them, the closed-form shortcut.

    `medil.config.preset(name).model` is a named shape.

    Example:
        >>> from medil import Grid, preset
        >>> model = MedIL(preset("test").model)
        >>> scan = Volume(torch.rand(8, 12, 16), Grid.from_spacing((8, 12, 16), 1.0))
        >>> latent = model.encode(scan)
        >>> model.decode(latent, Grid.from_spacing((4, 6, 8), 2.0, (0.5, 0.5, 0.5))).data.shape
        torch.Size([4, 6, 8])
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.encoder = Encoder(config, self.channels_in)
        self.decoder = Decoder(config)
        init_weights(self)

    # Weights files name the parts of the networks as release 0.6.0 did

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """The state of the module, under the names of weights files."""
        state = super().state_dict(*args, **kwargs)
        return {_renamed(WEIGHT_NAMES, key): value for key, value in state.items()}

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Load the state of the module, from the names of weights files."""
        names = {theirs: ours for ours, theirs in WEIGHT_NAMES.items()}
        state = {_renamed(names, key): value for key, value in state_dict.items()}
        return super().load_state_dict(state, *args, **kwargs)

    # The networks on the whole

    def encode_features(self, images: Tensor, grid: Grid, latent_grid: Grid) -> Tensor:
        """[B, channels_in, D, H, W] on `grid` -> [B, 2 C, d, h, w] on `latent_grid`."""
        features = self.encoder.stem(images, grid, self.fine_grid(latent_grid))
        numbers: Tensor = next(self.encoder(iter([features]), WHOLE))
        return numbers

    def decode_features(self, z: Tensor) -> Tensor:
        """[B, C, d, h, w] latents -> [B, width_fine, f d, f h, f w] features on the fine grid.

        On the CPU, without gradients, slab by slab: the whole takes half as long again, since
        maps of its size are fresh pages of memory each time.
        """
        whole = z.device.type != "cpu" or torch.is_grad_enabled()
        course = WHOLE if whole else Course(0)
        thick = z.shape[2] if whole else DECODED_PLANES
        slabs = course.cut(z * self.latent_gain, thick)
        return course.join(list(self.decoder(slabs, course)))

    def decode_residual(self, z: Tensor, latent_grid: Grid, grid: Grid) -> Tensor:
        """[B, C, d, h, w] on `latent_grid` -> [B, 1, D, H, W] on `grid`."""
        return self.render_features(self.decode_features(z), latent_grid, grid)

    def render_features(self, features: Tensor, latent_grid: Grid, grid: Grid) -> Tensor:
        """[B, width_fine, f d, f h, f w] on the fine grid -> [B, 1, D, H, W] on `grid`."""
        nodes = self.fine_grid(latent_grid)
        residual: Tensor = self.decoder.render(at_least_float(features), nodes, grid)
        return residual

    # Volumes

    @torch.inference_mode()
    def encode(
        self,
        volume: Volume,
        intensity: Intensity | None = None,
        *,
        memory_bytes: int | None = None,
        tile: int | None = None,
    ) -> Latent:
        """Encode a volume at its native grid (paper: implicit encoder), slab by slab.

        Args:
            volume: Any shape, spacing and orientation. Voxels of NaN and Inf do not count: the
                image is continued into them, and they are NaN where the latent is rendered.
            intensity: Its scaling; `robust_intensity` when None (`Intensity(-1000, 1000)` for CT).
            memory_bytes: Budget of the process; a share of what is free when None.
            tile: Thickness of the slabs in latent cells; from the budget when None.

        Returns:
            The latent; it does not depend on the thickness.

        Raises:
            InputError: A constant image, no finite value, values that no network can take, a line
                instead of a volume, or not enough memory.

        Example:
            >>> from medil import Grid, preset
            >>> scan = Volume(torch.rand(8, 12, 16), Grid.from_spacing((8, 12, 16), 1.0))
            >>> model = MedIL(preset("test").model)
            >>> latent = model.encode(scan)
            >>> latent.grid.shape, latent.grid.spacing_mm
            ((2, 3, 4), (4.0, 4.0, 4.0))
        """
        cells = self.latent_grid(volume.grid)
        check_axes(volume.grid, self.fine_grid(cells))
        planes = tile or planes_to_encode(self, volume.grid, cells, memory_bytes)
        scale = intensity or robust_intensity(volume.data)
        data, n_missing = replace_nonfinite(volume.data)
        scale.check(data)

        def read(block: Block) -> Tensor:
            return scale.forward(data[block])[None, None].to(self.device)  # [1, 1, d, h, w]

        projected = None
        if self.config.closed_form:
            depth, height, width = volume.grid.shape
            thick, all_ = max(1, SLAB_VOXELS // (height * width)), slice(None)
            pieces = ((i, read((slice(i, i + n), all_, all_))) for i, n in cuts(depth, thick))
            projected = self.splines.project_slabs(pieces, volume.grid, cells)

        def features(piece: tuple[int, int]) -> Tensor:
            nodes, dropped, kept = stem_nodes(self, cells, *piece)
            block, voxels = support(volume.grid, nodes, self.encoder.stem.reach)
            images = self.encoder_input(read(block), projected, voxels, cells)
            analysed: Tensor = self.encoder.stem(images, voxels, nodes)
            return analysed.narrow(2, dropped, kept)

        course = Course(0)
        coded = self.encoder(map(features, cuts(cells.shape[0], planes)), course)
        coded = under(lambda: network_precision(self.device, of_latents=True), coded)
        mean, log_var = self.distribution(course.join(list(coded)), projected)
        return Latent(
            mean[0].cpu(), log_var[0].cpu(), cells, volume.grid, scale, volume.source,
            self.weights_id, ~torch.isfinite(volume.data) if n_missing else None,
        )  # fmt: skip

    def field(self, latent: Latent, linear_only: bool = False, precision: str = "auto") -> Field:
        """The continuous image that a latent stands for (paper: implicit decoder); see `Field`.

        Example:
            >>> from medil import Grid, preset
            >>> scan = Volume(torch.rand(8, 12, 16), Grid.from_spacing((8, 12, 16), 1.0))
            >>> model = MedIL(preset("test").model)
            >>> field = model.field(model.encode(scan))
            >>> field.at([[3.5, 5.5, 7.5], [1.0, 2.0, 3.0]]).shape
            torch.Size([2])
        """
        return Field(self, latent, linear_only, precision)

    def decode(
        self,
        latent: Latent,
        grid: Grid | None = None,
        linear_only: bool = False,
        progress: bool = False,
        memory_bytes: int | None = None,
        precision: str = "auto",
    ) -> Volume:
        """Render a latent on a grid, the native one when None: `field(latent, ...).on(grid, ...)`.

        Arguments and errors are those of `Field` and `Field.on`.

        Example:
            >>> from medil import Grid, preset
            >>> scan = Volume(torch.rand(8, 12, 16), Grid.from_spacing((8, 12, 16), 1.0))
            >>> model = MedIL(preset("test").model)
            >>> latent = model.encode(scan)
            >>> model.decode(latent).data.shape  # on the voxels of the scan
            torch.Size([8, 12, 16])
            >>> model.decode(latent, scan.grid.with_spacing(2.0)).data.shape
            torch.Size([4, 6, 8])
        """
        return self.field(latent, linear_only, precision).on(
            grid, progress=progress, memory_bytes=memory_bytes
        )
