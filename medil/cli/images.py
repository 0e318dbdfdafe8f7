"""The commands of `medil`: check early what would fail late, then call the package."""

from __future__ import annotations

import inspect
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from medil import __version__
from medil.cli.book import book
from medil.cli.data import data
from medil.cli.doctor import doctor
from medil.cli.evaluate import evaluate
from medil.cli.options import (
    FILE,
    ImageCommand,
    Like,
    Spacing,
    Window,
    check_image_output,
    check_overlap,
    check_second_output,
    folder,
    force,
    like,
    load_weights,
    machine_options,
    model_options,
    output,
    precision,
    render_to_file,
    report,
    scan_options,
    seed,
    spacing,
    summarise,
    target,
    tell,
    warn_about,
    window,
)
from medil.cli.preprocess import preprocess
from medil.cli.sample import sample
from medil.cli.store import store
from medil.cli.train import train, train_appearance, train_ldm, train_segmenter
from medil.errors import InputError, printable
from medil.system.files import check_output, make_folder
from medil.system.memory import require_memory

if TYPE_CHECKING:
    from collections.abc import Callable

    from medil.synth.phantoms import Phantom
    from medil.volume import Volume

    Reader = Callable[[Path], Volume]

RENDER_BYTES = 16  # peak memory per voxel of a rendered phantom or a written file


def find_phantom(name: str, seed: int | None) -> Phantom:
    """A phantom by name, with the seed where it has random parts."""
    from medil.synth.phantoms import PHANTOMS

    if name not in PHANTOMS:
        raise InputError(f"there is no phantom {name!r}; choose one of {', '.join(PHANTOMS)}.")
    if seed is None:
        return PHANTOMS[name]()
    if "seed" not in inspect.signature(PHANTOMS[name]).parameters:
        raise InputError(f"the phantom {name!r} has no random parts; leave --seed out.")
    return PHANTOMS[name](seed=seed)


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 90},
    epilog="Example: medil reconstruct scan.nii.gz -o fine.nii.gz --spacing 1 1 1",
)
@click.version_option(__version__, prog_name="medil")
def medil() -> None:
    """Encode a volume at its own voxel size, render it at any other."""


@medil.command(epilog="Example: medil info scan.nii.gz")
@click.argument("file", type=FILE)
@scan_options
@click.option("--preset", default="tiny", show_default=True, help="Preset of the latent grid.")
def info(file: Path, read: Reader, preset: str) -> None:
    """Describe an image and the latent grid that it would get."""
    from medil.cli.describe import describe
    from medil.config import preset as find_preset

    config = find_preset(preset).model
    volume = read(file)
    for name, text in describe(volume, config.latent_spacing_mm, config.latent_channels):
        click.echo(f"{name:<12} {printable(text)}")


@medil.command(epilog="Example: medil convert dicom_folder -o scan.nii.gz")
@click.argument("file", type=FILE)
@output
@force
@scan_options
def convert(file: Path, output: Path, force: bool, read: Reader) -> None:
    """Write an image, or the DICOM series in a folder, in another format.

    Values stay as they are and voxels where they are. Nothing of a DICOM header is written but
    the place of the voxels.
    """
    from medil.volume import save

    check_image_output(output, force)
    volume = read(file)
    tell(volume)
    save(volume, output, force=force)


@medil.command(cls=ImageCommand, epilog="Example: medil encode scan.nii.gz -o scan.safetensors")
@click.argument("file", type=FILE)
@output
@force
@scan_options
@window
@model_options
@machine_options
def encode(
    file: Path,
    output: Path,
    force: bool,
    read: Reader,
    window: Window | None,
    preset: str | None,
    weights: Path | None,
    memory_bytes: int | None,
    device: str,
) -> None:
    """Encode an image on its own grid into a .safetensors file."""
    from medil.volume import Intensity

    if output.suffix != ".safetensors":
        raise InputError(f"{output}: a latent file ends in .safetensors.")
    check_output(output, force)
    intensity = Intensity(*window) if window else None
    volume = read(file)
    model = load_weights(preset, weights, device)
    warn_about(volume, intensity)
    report("encoding ...")
    model.encode(volume, intensity, memory_bytes=memory_bytes).save(output, force=force)


@medil.command(
    cls=ImageCommand,
    epilog="Example: medil decode scan.safetensors -o fine.nii.gz --spacing 0.7 0.7 0.7",
)
@click.argument("latent", type=FILE)
@output
@force
@spacing
@like
@model_options
@machine_options
@precision
def decode(
    latent: Path,
    output: Path,
    force: bool,
    spacing: Spacing | None,
    like: Like | None,
    preset: str | None,
    weights: Path | None,
    memory_bytes: int | None,
    device: str,
    precision: str,
) -> None:
    """Render a latent file on any grid.

    Without --spacing or --like the output has the shape, orientation and affine of the image
    that was encoded.
    """
    from medil.latent import Latent
    from medil.volume import check_room

    check_image_output(output, force)
    encoded = Latent.load(latent)
    grid, resembled = target(encoded.native, encoded.source, spacing, like)
    check_room(output, grid)
    model = load_weights(preset, weights, device)
    report("decoding ...")
    render_to_file(model, encoded, grid, resembled, output, force, memory_bytes, precision)


@medil.command(
    cls=ImageCommand,
    epilog="Example: medil reconstruct scan.nii.gz -o fine.nii.gz --spacing 1 1 1",
)
@click.argument("file", type=FILE)
@output
@force
@scan_options
@window
@spacing
@like
@model_options
@machine_options
@precision
@click.option(
    "--guard", type=click.Choice(["mirrors"]),
    help="Render what eight mirrored encodings agree on: less false detail, eight times the time.",
)  # fmt: skip
@click.option(
    "--uncertainty", type=FILE, metavar="IMAGE",
    help="Write the RMS error to expect at every voxel, from eight mirrored encodings.",
)  # fmt: skip
def reconstruct(
    file: Path,
    output: Path,
    force: bool,
    read: Reader,
    window: Window | None,
    spacing: Spacing | None,
    like: Like | None,
    preset: str | None,
    weights: Path | None,
    memory_bytes: int | None,
    device: str,
    precision: str,
    guard: str | None,
    uncertainty: Path | None,
) -> None:
    """Encode an image and render it on any grid.

    Without --spacing or --like the output has the shape, orientation and affine of the input.
    --guard and --uncertainty hold the whole output in memory.
    """
    from medil.model.guards import MIRRORS, guarded, mirrored, predicted_error
    from medil.volume import Intensity, check_room, save

    check_image_output(output, force)
    if uncertainty:
        check_second_output(uncertainty, output, force)
    intensity = Intensity(*window) if window else None
    volume = read(file)
    grid, resembled = target(volume.grid, volume.source, spacing, like)
    check_room(output, grid)
    if uncertainty:
        check_room(uncertainty, grid)
    model = load_weights(preset, weights, device)
    warn_about(volume, intensity)
    if guard or uncertainty:
        report("encoding and decoding eight mirror images ...")
        ensemble = mirrored(model, volume, grid, intensity, memory_bytes, precision)
        if uncertainty:
            save(predicted_error(ensemble), uncertainty, like=resembled, force=force)
        if guard:
            save(guarded(ensemble, volume.grid), output, like=resembled, force=force)
            cells = volume.grid.covering(model.config.latent_spacing_mm).n_voxels
            kept = len(MIRRORS) * cells * model.config.latent_channels  # of eight mirror images
            summarise(output, grid, resembled, volume.grid, kept)
            return
    report("encoding ...")
    latent = model.encode(volume, intensity, memory_bytes=memory_bytes)
    del volume  # what it held is free for the rendering
    report("decoding ...")
    render_to_file(model, latent, grid, resembled, output, force, memory_bytes, precision)


@medil.command(epilog="Example: medil phantom ball -o ball.nii.gz --spacing 1 1 3")
@click.argument("name")
@output
@force
@click.option(
    "--spacing", type=float, nargs=3, metavar="X Y Z", help="Voxel size in mm [default: 1 1 1]."
)
@like
@click.option("--seed", type=int, help="Seed of cortex and airway, the random ones [default: 0].")
@click.option(
    "--supersample", type=click.IntRange(1, 9), default=3, show_default=True,
    help="Sample points per voxel along each axis.",
)  # fmt: skip
def phantom(
    name: str,
    output: Path,
    force: bool,
    spacing: Spacing | None,
    like: Like | None,
    seed: int | None,
    supersample: int,
) -> None:
    """Draw a ramp, ball, shepp_logan, cortex or airway phantom.

    Phantoms are formulas, so every voxel is the average of a known function over its cell.
    """
    from medil.io.nifti import place_of
    from medil.synth.phantoms import render
    from medil.volume import Volume, save

    check_image_output(output, force)
    drawn = find_phantom(name, seed)
    if spacing and like:
        raise InputError("--spacing and --like both name the output's grid; name only one.")
    resembled = like.load() if like else None
    grid = drawn.grid(spacing or 1.0)
    if like and resembled:
        check_overlap(resembled.grid, grid, like.path)
        grid = resembled.grid
    require_memory(grid.n_voxels, RENDER_BYTES, "this phantom")
    source = place_of(resembled.source) if resembled and resembled.source else None
    save(Volume(render(drawn, grid, supersample), grid), output, like=source, force=force)


@medil.command(epilog="Example: medil cohort -o subjects -n 8 --seed 1")
@folder
@force
@click.option(
    "-n", "--count", type=click.IntRange(1), default=4, show_default=True, help="Number of scans."
)
@click.option(
    "--kind", type=click.Choice(["head", "chest"]), default="head", show_default=True,
    help="T1w heads, or parts of chests as CT sees them.",
)  # fmt: skip
@seed
@click.option(
    "--labels", type=FILE,
    help="Label map with FreeSurfer numbers to draw the heads on [default: MNI152 tissue maps].",
)  # fmt: skip
def cohort(
    output: Path, force: bool, count: int, kind: str, seed: int, labels: Path | None
) -> None:
    """Draw synthetic heads or chests, each scanned on a random grid."""
    from tqdm import trange

    from medil.synth.anatomy import label_anatomy, tissue_anatomy
    from medil.synth.cohort import subject
    from medil.synth.ct import chest_subject
    from medil.volume import save

    if labels and kind == "chest":
        raise InputError("--labels belongs to heads; leave it out, or ask for --kind head.")
    make_folder(output)
    paths = [output / f"subject_{seed}_{index:04d}.nii.gz" for index in range(count)]
    for path in paths:
        check_image_output(path, force)
    draw: Callable[[int, int], Volume] = chest_subject
    if kind == "head":
        draw = partial(subject, label_anatomy(labels) if labels else tissue_anatomy())
    for index in trange(count, desc=f"{kind}s", disable=not sys.stderr.isatty()):
        save(draw(seed, index), paths[index], force=force)


medil.add_command(book)
medil.add_command(data)
medil.add_command(doctor)
medil.add_command(evaluate)
medil.add_command(preprocess)
medil.add_command(sample)
medil.add_command(store)
medil.add_command(train)
medil.add_command(train_ldm)
medil.add_command(train_segmenter)
medil.add_command(train_appearance)
