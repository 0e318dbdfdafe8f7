"""Anatomies to sample a scan of: drawn, a map of the user's own, or the segmentation of a scan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch.nn import functional

from medil.anatomy.classes import LabelMap, at_one_mm, load_map
from medil.anatomy.draw import FACTS, draw_anatomy
from medil.anatomy.segmenter import segment
from medil.data.releases import releases
from medil.diffusion.appearance import AppearanceFlow
from medil.diffusion.appearance_training import RELEASE_NAME
from medil.errors import InputError, shown
from medil.grid import Grid
from medil.io.nifti import place_of
from medil.io.source import Source
from medil.synth.box import box_grid
from medil.volume import Volume, load

MARGIN_CELLS = 2  # of air around the tissue of a map, that the flow sees


def is_released(preset: str) -> bool:
    """Whether a preset has an anatomy-first model; `medil sample` then uses it by default."""
    return RELEASE_NAME.format(preset) in releases()


@dataclass(frozen=True)
class Anatomy:
    """What a scan is sampled of.

    Args:
        tissues: The map, in whole latent cells.
        native: The grid on which the scan is rendered unless another is asked for.
        source: The file whose orientation it takes; none of drawn anatomies.
        like: The scan that the sample agrees with, or None.
        facts: What `draw_anatomy` tells of a drawn one.
    """

    tissues: LabelMap
    native: Grid
    source: Source | None = None
    like: Volume | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


def drawn_anatomy(seed: int, condition: Mapping[str, float] | None = None) -> Anatomy:
    """A drawn anatomy, in the box of 160 x 192 x 160 mm around (0, 0, 0).

    Raises:
        InputError: As `check_condition`, or volumes that no anatomy reaches.
    """
    check_condition(condition or {})
    drawn = draw_anatomy(seed, asked=condition)
    return Anatomy(drawn.tissues, box_grid(1.0), facts=drawn.facts)


def given_anatomy(tissue_map: LabelMap | str | Path, voxels: int) -> Anatomy:
    """The anatomy of a map, or of the file of one, on the map's own grid.

    Args:
        tissue_map: Also as `load_map` reads it.
        voxels: Of a latent cell, along each axis.

    Raises:
        InputError: As `load_map`, or a map that is all air.
    """
    if isinstance(tissue_map, LabelMap):
        return Anatomy(in_cells(at_one_mm(tissue_map), voxels), tissue_map.grid)
    tissues, file = load_map(tissue_map), load(tissue_map)
    source = file.source and place_of(file.source)
    return Anatomy(in_cells(tissues, voxels), file.grid, source)


def anatomy_like(scan: Volume, voxels: int) -> Anatomy:
    """The anatomy of a skull-stripped scan: its own segmentation, on its own grid.

    Raises:
        InputError: As `medil.anatomy.segmenter.segment`.
    """
    return Anatomy(in_cells(segment(scan), voxels), scan.grid, scan.source, scan)


def in_cells(tissues: LabelMap, voxels: int) -> LabelMap:
    """The map cropped to its tissue, in whole latent cells with `MARGIN_CELLS` of air around it.

    Args:
        tissues: The map.
        voxels: Of a latent cell, along each axis.

    Raises:
        InputError: The map is all air.
    """
    inner, margin = tissues.cropped(), MARGIN_CELLS * voxels
    ends = [(margin, margin + -n % voxels) for n in inner.grid.shape]
    pads = [p for pair in reversed(ends) for p in pair]
    labels = functional.pad(inner.labels, pads)
    return LabelMap(labels, inner.grid.crop([-margin] * 3, labels.shape))


def latent_grid(tissues: LabelMap, flow: AppearanceFlow) -> Grid:
    """The grid of the latents of a map.

    Raises:
        InputError: The map has no whole cells, or cells of another size than the flow's latents.
    """
    voxels, pitch_mm = flow.config.voxels, flow.known.pitch_mm
    if any(n % voxels for n in tissues.grid.shape):
        shape = tuple(tissues.grid.shape)
        raise InputError(f"a map of {shape} voxels has no whole cells of {voxels}; see in_cells.")
    grid = tissues.grid.resized([n // voxels for n in tissues.grid.shape])
    if max(abs(size - pitch_mm) for size in grid.spacing_mm) > 1e-3:
        size_mm = pitch_mm / voxels
        raise InputError(f"this model samples maps in voxels of {size_mm:g} mm; resample the map.")
    return grid


def check_condition(asked: Mapping[str, float]) -> None:
    """Refuse names that are no facts of an anatomy.

    Raises:
        InputError: It names the facts.
    """
    for name in asked:
        if name not in FACTS:
            raise InputError(
                f"there is no condition {shown(name)} of an anatomy; "
                f"choose from {', '.join(FACTS)}."
            )
