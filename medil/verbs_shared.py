"""What several verbs do alike: find weights, settle the output's grid, refuse early, tell."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from medil.errors import InputError
from medil.files import check_output
from medil.memory import require_memory

if TYPE_CHECKING:
    from medil.autoencoder import MedIL
    from medil.grid import Grid
    from medil.volume import Source

Spacing = tuple[float, float, float]


def load_weights(preset: str | None, weights: Path | None) -> MedIL:
    """The model that --preset and --weights name.

    Raises:
        InputError: Unknown preset, unreadable weights, or weights of another preset.
    """
    from medil.checkpoint import load_model, load_release
    from medil.config import preset as find_preset

    if preset is not None:
        find_preset(preset)
    return load_model(weights, preset) if weights else load_release(preset or "tiny")


def target(
    native: Grid, source: Source | None, spacing_mm: Spacing | None, other: Path | None
) -> tuple[Grid, Source | None]:
    """The grid that --spacing or --like ask for, and the file that the output resembles.

    Args:
        native: The image's grid, RAS+; the target without either option.
        source: Its file, to whose axes --spacing refers.
        spacing_mm: From --spacing.
        other: From --like.

    Returns:
        A grid, RAS+, and what `save` takes as `like`.

    Raises:
        InputError: Both options, a spacing that is not above zero or larger than the
            image, or an output that would not fit into memory.
    """
    from medil.affine import as_triple
    from medil.autoencoder import DECODE_BYTES
    from medil.volume import load

    if spacing_mm and other:
        raise InputError("--spacing and --like both name the output's grid; say only one.")
    grid = native
    if other:
        resembled = load(other, volume_index=0)
        grid, source = resembled.grid, resembled.source
    if spacing_mm:
        on_disk = source.grid if source else native
        spacing_mm = as_triple(spacing_mm, "--spacing")
        for size, extent in zip(spacing_mm, on_disk.extent_mm, strict=True):
            if size > extent * (1 + 1e-6):
                raise InputError(
                    f"--spacing {size:g} mm is larger than the image, which is {extent:g} mm wide."
                )
        grid, _ = on_disk.with_spacing(spacing_mm).reoriented("RAS")
    require_memory(grid.n_voxels, DECODE_BYTES, "this output")
    return grid, source


def check_image_output(path: Path, replace: bool) -> None:
    """Refuse an output that `save` would refuse, before minutes of work."""
    from medil.formats import suffix_of

    suffix_of(path)
    check_output(path, replace)


def tell(text: str) -> None:
    """One line about a long step, where somebody watches."""
    if sys.stderr.isatty():
        click.echo(text, err=True)
