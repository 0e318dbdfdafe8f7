"""Latents of one head on many grids, in pairs that ought to be alike.

Every pair lies on one set of latent cells. Latents that were encoded on other cells, as
oblique voxels need, are brought there in closed form.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial

import numpy as np
import torch
from torch import Tensor

from eval.consistency_heads import (
    PASS_PER_MM,
    STOP_PER_MM,
    Content,
    band_limited,
    scan_smooth,
    scan_whole,
    turned,
)
from eval.consistency_report import (
    ANOTHER,
    COARSE_OF_2_MM,
    OWN,
    SAME,
    SHIFTED_CELLS,
    TRANSPORTED,
    TURNED,
    WHOLE,
)
from eval.metrics import peak_intensity, psnr
from eval.reconstruction import timed
from medil.grid import Grid, centres_mm
from medil.shortcut import LatentAutoencoder

MARGIN_CELLS = 3  # latent cells nearer to a face of either scan's box are not compared
PHASE_MM = (0.29, 0.73, -0.41)  # of latent cells against voxels: coinciding centres flatter
CELL_SHIFT_MM = (1.37, -0.71, 1.93)  # of latent cells that are brought back in closed form
FOREGROUND = 0.02  # PSNR counts where the truth is brighter, on the 0 ... 1 scale

Place = Callable[[Grid], Grid]
OTHER_GRIDS: dict[str, Place] = {  # of the 1 mm block, parallel to it
    "shifted": lambda block: block.shifted((0.37, 0.5, 0.21)),
    "0.7 mm": lambda block: block.with_spacing(0.7),
    "0.5 mm": lambda block: block.with_spacing(0.5),
}
OTHER_RESOLUTIONS: dict[str, Place] = {
    "shifted": OTHER_GRIDS["shifted"],
    "0.8 mm": lambda block: block.with_spacing(0.8),
    "1.5 mm": lambda block: block.with_spacing(1.5),
    "2 mm": lambda block: block.with_spacing(2.0).shifted((0.61, 0.93, -0.27)),
    "2 mm, aligned": lambda block: block.with_spacing(2.0),
    "1 x 1 x 3 mm": lambda block: block.with_spacing((1.0, 1.0, 3.0)),
}
DEFINITION = {  # what the numbers mean; another meaning is another configuration
    "version": 1,
    "margin_cells": MARGIN_CELLS,
    "mm": [PHASE_MM, CELL_SHIFT_MM],
    "band_per_mm": [PASS_PER_MM, STOP_PER_MM],
}


@dataclass(frozen=True)
class Coder:
    """One way from voxels to a latent and back.

    Args:
        name: Arm, as in the rows.
        encode: [1, 1, D, H, W], its grid and a latent grid to [1, C, d, h, w].
        decode: A latent, its grid and a voxel grid to [1, 1, D, H, W].
    """

    name: str
    encode: Callable[[Tensor, Grid, Grid], Tensor]
    decode: Callable[[Tensor, Grid, Grid], Tensor]

    def latent(self, data: np.ndarray, grid: Grid, latent_grid: Grid) -> Tensor:
        """[D, H, W] to [C, d, h, w]."""
        return self.encode(torch.from_numpy(data).float()[None, None], grid, latent_grid)[0]


def coders(model: LatentAutoencoder) -> list[Coder]:
    """The model, and its closed form alone where it has one."""

    def mean(x: Tensor, grid: Grid, latent_grid: Grid) -> Tensor:
        return model.encode_tensor(x, grid, latent_grid)[0]

    learned = Coder(model.config.architecture, mean, model.decode_tensor)
    splines = Coder("medil_splines", model.project, model.render_linear)
    return [learned, splines] if model.config.closed_form else [learned]


def parts(model: LatentAutoencoder) -> dict[str, slice]:
    """Which channels are compared: all, and the mean over a latent cell where there is one."""
    found = {"all": slice(None)}
    if model.config.closed_form and model.config.fine_per_latent == 2:
        found["coarse"] = slice(0, 1)  # the Haar mean; the other channels are details
    return found


def latent_grid(block: Grid, pitch_mm: float) -> Grid:
    """Latent cells over the block and one more an axis, at an odd phase to its voxels."""
    covering = block.covering(pitch_mm)
    wider = covering.crop((0, 0, 0), [n + 1 for n in covering.shape])
    return wider.shifted(block.directions @ (np.asarray(PHASE_MM) - pitch_mm / 2))


def transport(
    model: LatentAutoencoder, z: Tensor, cells: Grid, common: Grid, voxels: Grid
) -> Tensor:
    """A latent brought to other cells in closed form: its splines rendered, then projected.

    Args:
        model: Whose splines.
        z: [C, d, h, w] on `cells`.
        cells: Its latent grid, parallel to `common` or oblique.
        common: Where it is wanted.
        voxels: Rendered in between, parallel to `common`.

    Returns:
        [C, d', h', w'] on `common`.
    """
    return model.project(model.render_linear(z[None], cells, voxels), voxels, common)[0]


def counted(cells: Grid, boxes: Sequence[Grid]) -> Tensor:
    """[d, h, w] bool: cells whose centres lie `MARGIN_CELLS` inside the box of every scan."""
    centres = centres_mm(cells).numpy()
    inside = np.ones(cells.shape, dtype=bool)
    for box in boxes:
        index = box.ras_to_index(centres)
        to_face_vox = np.minimum(index + 0.5, np.asarray(box.shape) - 0.5 - index)
        to_face_mm = to_face_vox * box.spacing_mm
        inside &= (to_face_mm >= MARGIN_CELLS * max(cells.spacing_mm)).all(-1)
    return torch.from_numpy(inside)


@dataclass(frozen=True)
class Pair:
    """Two latents of one head on the same latent cells.

    Args:
        reference: [C, n cells that count].
        other: [C, n].
        grid: Of the other scan.
        time_s: What encoding it took.
    """

    reference: Tensor
    other: Tensor
    grid: Grid
    time_s: float


@dataclass
class Measured:
    """All of one head, by (arm, condition): pairs of latents, and PSNR of the block in dB."""

    block: Grid
    pairs: dict[tuple[str, str], Pair] = field(default_factory=dict)
    psnr_db: dict[tuple[str, str], float] = field(default_factory=dict)


@torch.inference_mode()
def measure(model: LatentAutoencoder, content: Content) -> Measured:
    """Encode one head on all grids.

    Args:
        model: Any arm of the comparison, on the CPU; oblique grids need its closed form.
        content: The head.

    Returns:
        Its latents in pairs, and what the coarse part of a 2 mm scan costs in dB.
    """
    block, found = content.block, Measured(content.block)
    common = latent_grid(block, model.config.latent_spacing_mm)
    smooth = cache(partial(scan_smooth, band_limited(content)))  # for every coder the same
    whole = cache(partial(scan_whole, content))
    resolutions = {name: place(block) for name, place in OTHER_RESOLUTIONS.items()}
    resolutions = {name: g for name, g in resolutions.items() if can_scan(content, g)}
    for coder in coders(model):
        for name, *scanned in another_grid(model, coder, smooth, block, common):
            found.pairs[coder.name, f"{SAME} -> {name}"] = compared(common, block, *scanned)
        for name, *scanned in another_resolution(coder, whole, block, common, resolutions):
            found.pairs[coder.name, f"{WHOLE} -> {name}"] = compared(common, block, *scanned)
        if "coarse" in parts(model):
            found.psnr_db |= with_coarse_part_of_2_mm(coder, whole, block, common)
    return found


Scanner = Callable[[Grid], np.ndarray]
Scanned = tuple[str, Tensor, Tensor, Grid, float]  # name, reference, other, its grid, seconds


def another_grid(
    model: LatentAutoencoder, coder: Coder, scan: Scanner, block: Grid, common: Grid
) -> Iterator[Scanned]:
    """The same band-limited content on other voxels, and on other latent cells.

    Latents on other cells, which oblique voxels need, are brought back in closed form; they
    are compared with a reference that went the same way.
    """

    def encode(grid: Grid, cells: Grid) -> tuple[Tensor, float]:
        return timed(coder.latent, scan(grid), grid, cells)

    reference, time_s = encode(block, common)
    yield ANOTHER, reference, reference, block, time_s
    for name, place in OTHER_GRIDS.items():
        grid = place(block)
        z, time_s = encode(grid, common)
        yield name, reference, z, grid, time_s
    if not model.config.closed_form:
        return
    home = transport(model, reference, common, common, block)
    yield TRANSPORTED, reference, home, block, time_s
    shifted = common.shifted(block.directions @ np.asarray(CELL_SHIFT_MM))
    own = latent_grid(turned(block), model.config.latent_spacing_mm)
    for name, grid, cells in ((SHIFTED_CELLS, block, shifted), (TURNED, turned(block), own)):
        z, time_s = encode(grid, cells)
        yield name, home, transport(model, z, cells, common, block), grid, time_s


def another_resolution(
    coder: Coder, scan: Scanner, block: Grid, common: Grid, grids: Mapping[str, Grid]
) -> Iterator[Scanned]:
    """The whole content averaged over the voxels of other grids, against those of 1 mm."""
    reference, time_s = timed(coder.latent, scan(block), block, common)
    yield ANOTHER, reference, reference, block, time_s
    for name, grid in grids.items():
        z, time_s = timed(coder.latent, scan(grid), grid, common)
        yield name, reference, z, grid, time_s


def can_scan(content: Content, grid: Grid) -> bool:
    """Whether averages over a grid's voxels are another scan of what the content knows."""
    own_mm = max(content.grid.spacing_mm) + 1e-6
    return max(grid.spacing_mm) > own_mm and min(grid.spacing_mm) > own_mm - 2e-6


def compared(
    common: Grid, block: Grid, reference: Tensor, other: Tensor, grid: Grid, time_s: float
) -> Pair:
    """The cells of two latents that lie well inside both scans."""
    where = counted(common, (block, grid))
    return Pair(reference[:, where], other[:, where], grid, time_s)


def with_coarse_part_of_2_mm(
    coder: Coder, scan: Scanner, block: Grid, common: Grid
) -> dict[tuple[str, str], float]:
    """PSNR of the block at 1 mm in dB: its own latent, and one with the 2 mm scan's means.

    It is taken inside the head, as far from the block's faces as latents are compared.
    """
    truth, coarser = scan(block), OTHER_RESOLUTIONS["2 mm"](block)
    own = coder.latent(truth, block, common)
    mixed = torch.cat([coder.latent(scan(coarser), coarser, common)[:1], own[1:]])
    margin = round(MARGIN_CELLS * max(common.spacing_mm) / max(block.spacing_mm))
    inner = tuple(slice(margin, n - margin) for n in block.shape)
    mask = truth[inner] > FOREGROUND
    peak = peak_intensity(truth[inner], mask)

    def reached(z: Tensor) -> float:
        estimate = coder.decode(z[None], common, block)[0, 0].double().numpy()
        return psnr(truth[inner], estimate[inner], mask, peak)

    return {(coder.name, OWN): reached(own), (coder.name, COARSE_OF_2_MM): reached(mixed)}
