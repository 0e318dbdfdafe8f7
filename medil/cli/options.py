"""Shared by several commands: options, weights, the grid of the output, early checks."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from medil.errors import InputError, printable
from medil.io.windows import CT_WINDOWS, ct_window
from medil.system.files import check_output
from medil.system.memory import parse_size

if TYPE_CHECKING:
    from medil.grid import Grid
    from medil.latent import Latent
    from medil.model.autoencoder import MedIL
    from medil.volume import Intensity, Source, Volume

FINER = 0.99  # of the scan's volume of a voxel; below it, an output is finer than the scan
Spacing = tuple[float, float, float]
Window = tuple[float, float]
Verb = Callable[..., Any]

FILE = click.Path(path_type=Path)
output = click.option("-o", "--output", type=FILE, required=True, help="File to write.")
folder = click.option(
    "-o", "--output", type=FILE, required=True, help="Folder to write to; created if missing."
)
force = click.option("--force", is_flag=True, help="Replace output that exists.")
seed = click.option(
    "--seed", type=int, default=0, show_default=True, help="Seed of the random numbers."
)
spacing = click.option(
    "--spacing", type=float, nargs=3, metavar="X Y Z",
    help="Voxel size of the output in mm, along the axes of the file; one number for cubes.",
)  # fmt: skip
window = click.option(
    "--window", type=float, nargs=2, metavar="LOW HIGH|NAME",
    help="Intensities that become 0 and 1, such as -1000 1000 for CT, or the name of a CT window: "
    f"{', '.join(CT_WINDOWS)}. Nothing beyond them is clipped [default: percentiles].",
)  # fmt: skip
bids_suffix = click.option(
    "--suffix", default="T1w", show_default=True, metavar="NAME",
    help="Which images of a BIDS data set: the end of their names.",
)  # fmt: skip
preset = click.option("--preset", metavar="NAME", help="Released model [default: tiny].")


precision = click.option(
    "--precision", type=click.Choice(["auto", "float32", "bfloat16"]), default="auto",
    show_default=True,
    help="Precision of the networks that render; auto is bfloat16 where the machine has it.",
)  # fmt: skip


class ImageCommand(click.Command):
    """--window takes two numbers or the name of a CT window; --spacing one number or three."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the two numbers of a named window in its place, and three for one voxel size."""
        numbers: list[str] = []
        for before, word, after in zip(["", *args], args, [*args[1:], ""], strict=False):
            if before == "--window" and not _is_number(word):
                numbers += map(str, ct_window(word))
            elif before == "--spacing" and _is_number(word) and not _is_number(after):
                numbers += [word] * 3
            else:
                numbers.append(word)
        return super().parse_args(ctx, numbers)


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def scan_options(verb: Verb) -> Verb:
    """Add --volume, --series and --keep-tilt; the verb takes `read`, `load` with these options."""
    volume = click.option(
        "--volume", "volume_index", type=int, metavar="K", help="Volume of a 4-D image, from 0."
    )
    series = click.option(
        "--series", metavar="NUMBER", help="Number or UID of the series in a DICOM folder."
    )
    keep_tilt = click.option(
        "--keep-tilt", is_flag=True, help="Keep the shear of a DICOM series with a tilted gantry."
    )

    @wraps(verb)
    def with_read(
        *args: object, volume_index: int | None, series: str | None, keep_tilt: bool, **rest: object
    ) -> object:
        from medil.volume import load

        read = partial(load, volume_index=volume_index, series=series, keep_tilt=keep_tilt)
        return verb(*args, read=read, **rest)

    return volume(series(keep_tilt(with_read)))


def like(verb: Verb) -> Verb:
    """Add --like and --like-series; the verb takes `like`, a `Like` or None."""
    place = click.option(
        "--like", "place", type=FILE, metavar="IMAGE", help="Render on the grid of this image."
    )
    series = click.option(
        "--like-series", metavar="NUMBER", help="Number or UID of the series in a --like folder."
    )

    @wraps(verb)
    def with_like(
        *args: object, place: Path | None, like_series: str | None, **rest: object
    ) -> object:
        if place is None and like_series is not None:
            raise InputError("--like-series chooses from a DICOM folder; name it with --like.")
        return verb(*args, like=Like(place, like_series) if place else None, **rest)

    return place(series(with_like))


class Like(NamedTuple):
    """The image whose grid an output takes."""

    path: Path
    series: str | None

    def load(self) -> Volume:
        """The image; the first volume of a 4-D one."""
        from medil.volume import load

        try:
            return load(self.path, volume_index=0, series=self.series)
        except InputError as error:
            raise InputError(str(error).replace("`series=", "`like_series=")) from error


def model_options(verb: Verb) -> Verb:
    """Add --preset and --weights to a verb."""
    weights = click.option("--weights", type=FILE, help="Weights of a model that you trained.")
    return preset(weights(verb))


def machine_options(verb: Verb) -> Verb:
    """Add --memory (in bytes) and --device to a verb."""
    memory = click.option(
        "--memory", "memory_bytes", metavar="SIZE",
        callback=lambda _, __, text: text if text is None else parse_size(text),
        help="Memory that the process may use, such as 2GB [default: half of the free memory].",
    )  # fmt: skip
    device = click.option(
        "--device",
        type=click.Choice(["auto", "cpu", "cuda", "mps"]),
        default="auto",
        help="Device to compute on [default: cuda if available, else cpu]; mps is untested.",
    )
    return device(memory(verb))


def load_weights(preset: str | None, weights: Path | None, device: str = "cpu") -> MedIL:
    """The model that --preset, --weights and --device name."""
    from medil.config import preset as find_preset
    from medil.model.autoencoder import MedIL
    from medil.model.weights import load_model, load_release
    from medil.system.device import find_device, place_model

    chosen = find_device(device)
    if preset is not None:
        find_preset(preset)
    model = load_model(weights, preset) if weights else load_release(preset or "tiny")
    if not isinstance(model, MedIL):
        name = model.config.architecture
        raise InputError(f"{weights} holds weights of the rival {name!r}; only `eval` can use it.")
    return place_model(model, chosen)


def render_to_file(
    model: MedIL,
    latent: Latent,
    grid: Grid,
    like: Source | None,
    output: Path,
    force: bool,
    memory_bytes: int | None,
    precision: str = "auto",
) -> None:
    """Decode into a file, slab by slab, with a progress bar on a terminal."""
    from medil.volume import save_slabs

    field = model.field(latent, precision=precision)
    progress = sys.stderr.isatty()
    make_slabs = partial(field.slabs, grid, memory_bytes=memory_bytes, progress=progress)
    save_slabs(output, grid, like, make_slabs, force, memory_bytes)
    summarise(output, grid, like, latent.native, latent.n_numbers)


def summarise(output: Path, grid: Grid, like: Source | None, native: Grid, kept: int) -> None:
    """Print what was written and how much it was made of; warn of voxels below the scan's.

    Args:
        output: The file that was written.
        grid: Its grid, RAS+.
        like: The file whose orientation it has.
        native: Grid of the scan, RAS+.
        kept: How many numbers stood for the scan.
    """
    from medil.cli.describe import times

    written = grid.reoriented(like.grid.orientation)[0] if like else grid
    click.echo(
        f"{output}: {times(written.shape)} voxels of {times(written.spacing_mm)} mm, made of "
        f"{kept:,} numbers, {kept / native.n_voxels:.2g} for a voxel of the scan. Values are not "
        "clipped; not for diagnosis."
    )
    if math.prod(grid.spacing_mm) < FINER * math.prod(native.spacing_mm):
        click.echo(
            "warning: these voxels are smaller than the scan's, and detail below those is a guess; "
            "see --uncertainty and --guard.",
            err=True,
        )


def target(
    native: Grid, source: Source | None, spacing_mm: Spacing | None, other: Like | None
) -> tuple[Grid, Source | None]:
    """The grid of the output, RAS+, and the file whose format and orientation it takes.

    Args:
        native: Grid of the image, RAS+; the output's grid without either option.
        source: File of the image; --spacing is along its axes.
        spacing_mm: Value of --spacing.
        other: Value of --like.
    """
    from medil.grid import as_triple
    from medil.io.nifti import place_of

    if spacing_mm and other:
        raise InputError("--spacing and --like both name the output's grid; name only one.")
    grid = native
    if other:
        resembled = other.load()
        grid, source = resembled.grid, resembled.source and place_of(resembled.source)
        check_overlap(grid, native, other.path)
    if spacing_mm:
        on_disk = source.grid if source else native
        spacing_mm = as_triple(spacing_mm, "--spacing")
        for size, extent in zip(spacing_mm, on_disk.extent_mm, strict=True):
            if size > extent * (1 + 1e-6):
                raise InputError(
                    f"--spacing {size:g} mm is larger than the image, which is {extent:g} mm wide."
                )
        grid, _ = on_disk.with_spacing(spacing_mm).aligned(native)
    return grid, source


def check_overlap(grid: Grid, box: Grid, like: Path) -> None:
    """Refuse the grid of --like if nothing of what is drawn would lie on it."""
    if not grid.overlaps(box):
        places = [", ".join(f"{a:.0f} to {b:.0f}" for a, b in g.bounds_mm.T) for g in (grid, box)]
        raise InputError(
            f"{like} fills R, A, S {places[0]} mm and shares nothing with what is rendered, which "
            f"fills {places[1]} mm; register one to the other first."
        )


def check_image_output(path: Path, replace: bool) -> None:
    """Refuse an output that `save` would refuse, before minutes of work."""
    from medil.io.source import written_suffix

    written_suffix(path)
    check_output(path, replace)


def check_second_output(path: Path, first: Path, replace: bool) -> None:
    """`check_image_output` of an output beside another one."""
    if path.absolute() == first.absolute():
        raise InputError(f"{path} is asked for twice; give each output a name of its own.")
    check_image_output(path, replace)


def warn_about(volume: Volume, intensity: Intensity | None = None) -> None:
    """Print what is odd about an image, one line each, on stderr; refuses one without a scale."""
    from medil.io.notices import notices
    from medil.volume import robust_intensity

    scale = intensity or robust_intensity(volume.data)
    tell(volume)
    for text in notices(volume.data, volume.grid.spacing_mm, scale):
        click.echo(f"warning: {printable(text)}", err=True)


def tell(volume: Volume) -> None:
    """Print what had to be assumed or left out to read an image, one line each, on stderr."""
    for text in volume.source.notes if volume.source else ():
        click.echo(f"warning: {printable(text)}", err=True)


def report(text: str) -> None:
    """Print one line about a long step, on a terminal only."""
    if sys.stderr.isatty():
        click.echo(text, err=True)
