"""The lines that `medil info` prints about an image.

``book/interactive/header`` says the same of a header in the browser; a test compares them.
"""

from __future__ import annotations

import math

import torch

from medil.errors import InputError
from medil.grid import Grid
from medil.io.forms import describe_forms, half_voxel, tilt_deg
from medil.io.notices import notices, odd_sizes
from medil.io.source import Source
from medil.volume import Volume, robust_intensity

Facts = list[tuple[str, str]]  # name and text of each


def describe(volume: Volume, latent_spacing_mm: float, latent_channels: int) -> Facts:
    """What an image is, and the latent that it would get, in reading order."""
    source = volume.source
    facts = describe_header(source) if source else describe_grid(volume.grid)
    facts += _intensity(volume.data)
    facts.append(("latent", describe_latent(volume.grid, latent_spacing_mm, latent_channels)))
    return facts + [("note", note) for note in (*(source.notes if source else ()), *_odd(volume))]


def describe_file(source: Source, latent_spacing_mm: float, latent_channels: int) -> Facts:
    """`describe` of a header alone: all that is known before the voxels are read."""
    native = source.grid.reoriented("RAS")[0]
    latent = describe_latent(native, latent_spacing_mm, latent_channels)
    notes = [*source.notes, *filter(None, [odd_sizes(source.grid.spacing_mm)])]
    return [*describe_header(source), ("latent", latent), *(("note", note) for note in notes)]


def describe_header(source: Source) -> Facts:
    """Where a file says that its voxels are, and what they are stored as."""
    facts = describe_grid(source.grid)
    if (n := _n_volumes(source)) > 1:
        facts.insert(1, ("volumes", f"{n}, one of which is described"))
    if source.codes is not None:
        facts.append(("codes", f"qform {source.codes[0]}, sform {source.codes[1]}"))
        facts.append(("forms", describe_forms(source)))
    facts.append(("half_voxel", half_voxel(source)))
    facts.append(("units", f"space {source.units[0]}, time {source.units[1]}"))
    scaled = f", value = stored * {source.slope:g} + {source.inter:g}" if source.is_scaled else ""
    return [*facts, ("dtype", f"{source.dtype.name} ({source.kind}){scaled}")]


def describe_grid(grid: Grid) -> Facts:
    """Shape, directions and box of a grid."""
    low, high = grid.bounds_mm
    bounds = zip("RAS", low, high, strict=True)
    return [
        ("shape", times(grid.shape)),
        ("orientation", grid.orientation),
        ("tilt_deg", ", ".join(_fixed(angle) for angle in tilt_deg(grid))),
        ("spacing_mm", times(grid.spacing_mm)),
        ("extent_mm", times(grid.extent_mm)),
        ("bounds_mm", ", ".join(f"{a} {_fixed(x)} to {_fixed(y)}" for a, x, y in bounds)),
    ]


def describe_latent(native: Grid, spacing_mm: float, channels: int) -> str:
    """The latent of an image on a grid in RAS+ order, and how many numbers that keeps."""
    grid = native.covering(spacing_mm)
    kept = grid.n_voxels * channels
    return (
        f"{channels} x {times(grid.shape)} at {spacing_mm:g} mm: "
        f"{kept:,} numbers, {kept / native.n_voxels:.3g} a voxel"
    )


def _n_volumes(source: Source) -> int:
    """How many volumes the file of a NIfTI or MGH header holds."""
    if not hasattr(source.header, "get_data_shape"):
        return 1
    return math.prod(int(n) or 1 for n in source.header.get_data_shape()[3:])


def _odd(volume: Volume) -> list[str]:
    try:
        scale = robust_intensity(volume.data)
    except InputError:  # said under intensity
        return []
    return notices(volume.data, volume.grid.spacing_mm, scale)


def times(numbers: tuple[float, ...]) -> str:
    """Such as ``1 x 1 x 3``."""
    return " x ".join(f"{n:.5g}" for n in numbers)


def _fixed(number: float) -> str:
    """With two decimals; never minus zero."""
    return f"{round(number, 2) + 0.0:.2f}"


def _intensity(data: torch.Tensor) -> Facts:
    finite = data[torch.isfinite(data)] if data.is_floating_point() else data.reshape(-1)
    n_bad = data.numel() - finite.numel()
    facts = [("non-finite", f"{n_bad:,} voxels (NaN or Inf)")] if n_bad else []
    try:
        scaling = robust_intensity(data)
    except InputError as error:
        return [("intensity", str(error)), *facts]
    low, high = (float(v) for v in torch.aminmax(finite))
    text = f"{low:g} to {high:g}; {scaling.low:g} to {scaling.high:g} becomes 0 to 1"
    return [("intensity", text), *facts]
