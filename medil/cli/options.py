"""What several verbs do alike: find weights, settle the output's grid, refuse early, tell."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from medil.errors import InputError
from medil.system.files import check_output
from medil.system.memory import parse_size

if TYPE_CHECKING:
    from collections.abc import Callable

    from medil.grid import Grid
    from medil.latent import Latent
    from medil.model.autoencoder import MedIL
    from medil.volume import Source

Spacing = tuple[float, float, float]


def machine_options(verb: Callable) -> Callable:
    """Add --memory (as bytes) and --device to a verb."""
    verb = click.option(
        "--memory", "memory_bytes", metavar="SIZE",
        callback=lambda _, __, text: text if text is None else parse_size(text),
        help="What the process may hold, such as 2GB [default: half of what is free].",
    )(verb)  # fmt: skip
    return click.option(
        "--device",
        type=click.Choice(["auto", "cpu", "cuda", "mps"]),
        default="auto",
        help="Where to compute [default: cuda if there, else cpu]; mps is untested.",
    )(verb)


def load_weights(preset: str | None, weights: Path | None, device: str = "cpu") -> MedIL:
    """The model that --preset, --weights and --device name.

    Raises:
        InputError: Unknown preset, unreadable weights, weights of another preset or of a
            rival, or no such device.
    """
    from medil.config import preset as find_preset
    from medil.model.autoencoder import MedIL
    from medil.model.weights import load_model, load_release
    from medil.system.device import find_device, placed

    found = find_device(device)
    if preset is not None:
        find_preset(preset)
    model = load_model(weights, preset) if weights else load_release(preset or "tiny")
    if not isinstance(model, MedIL):
        name = model.config.architecture
        raise InputError(f"{weights} holds weights of the rival {name!r}; only `eval` can use it.")
    return placed(model, found)


def render_to_file(
    model: MedIL,
    latent: Latent,
    grid: Grid,
    like: Source | None,
    output: Path,
    force: bool,
    memory_bytes: int | None,
) -> None:
    """Decode into a file, slab by slab, under a bar where somebody watches."""
    from medil.volume import save_slabs

    def make_slabs(axis: int, descending: bool):
        return model.decode_slabs(
            latent, grid, axis=axis, descending=descending, memory_bytes=memory_bytes,
            progress=sys.stderr.isatty(),
        )  # fmt: skip

    save_slabs(output, grid, like, make_slabs, force, memory_bytes)


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
        InputError: Both options, or a spacing that is not above zero or larger than the
            image.
    """
    from medil.grid import as_triple
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
    return grid, source


def check_image_output(path: Path, replace: bool) -> None:
    """Refuse an output that `save` would refuse, before minutes of work."""
    from medil.io.source import written_suffix

    written_suffix(path)
    check_output(path, replace)


def tell(text: str) -> None:
    """One line about a long step, where somebody watches."""
    if sys.stderr.isatty():
        click.echo(text, err=True)
