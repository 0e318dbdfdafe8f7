"""The lines that `medil info` prints about an image."""

from __future__ import annotations

import torch

from medil.errors import InputError
from medil.grid import Grid
from medil.io.notices import notices
from medil.volume import Volume, robust_intensity


def describe(
    volume: Volume, latent_spacing_mm: float, latent_channels: int
) -> list[tuple[str, str]]:
    """Name and text of each fact of an image and of its latent, in reading order."""
    source = volume.source
    grid = source.grid if source else volume.grid
    low, high = grid.bounds_mm
    facts = [
        ("shape", _times(grid.shape)),
        ("orientation", grid.orientation),
        ("spacing_mm", _times(grid.spacing_mm)),
        ("extent_mm", _times(grid.extent_mm)),
        (
            "bounds_mm",
            ", ".join(f"{a} {x:.2f} to {y:.2f}" for a, x, y in zip("RAS", low, high, strict=True)),
        ),
    ]
    if source is not None:
        if source.codes is not None:
            facts.append(("codes", f"qform {source.codes[0]}, sform {source.codes[1]}"))
        facts.append(("units", f"space {source.units[0]}, time {source.units[1]}"))
        scaled = (
            f", value = stored * {source.slope:g} + {source.inter:g}" if source.is_scaled else ""
        )
        facts.append(("dtype", f"{source.dtype.name} ({source.kind}){scaled}"))
    facts += _intensity(volume.data)
    facts.append(("latent", _latent(volume.grid, latent_spacing_mm, latent_channels)))
    return facts + [("note", note) for note in (*(source.notes if source else ()), *_odd(volume))]


def _odd(volume: Volume) -> list[str]:
    try:
        scale = robust_intensity(volume.data)
    except InputError:  # said under intensity
        return []
    return notices(volume.data, volume.grid.spacing_mm, scale)


def _times(numbers: tuple) -> str:
    return " x ".join(f"{n:.5g}" for n in numbers)


def _intensity(data: torch.Tensor) -> list[tuple[str, str]]:
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


def _latent(native: Grid, spacing_mm: float, channels: int) -> str:
    grid = native.covering(spacing_mm)
    kept = grid.n_voxels * channels
    return (
        f"{channels} x {_times(grid.shape)} at {spacing_mm:g} mm: "
        f"{kept:,} numbers, {kept / native.n_voxels:.3g} a voxel"
    )
