"""`medil sample`: new heads from a latent diffusion model.

A sample is one latent; each voxel size is a rendering of it.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from medil.cli.options import (
    FILE,
    check_image_output,
    folder,
    force,
    load_weights,
    machine_options,
    preset,
    render_to_file,
    report,
    target,
)
from medil.dials import read_settings
from medil.errors import InputError
from medil.system.files import check_output, make_folder

if TYPE_CHECKING:
    from medil.diffusion.flow import LatentFlow
    from medil.diffusion.sampling import Observation
    from medil.grid import Grid
    from medil.model.autoencoder import MedIL
    from medil.volume import Volume

Triple = tuple[float, float, float]
DEFAULT_MM: Triple = (1.0, 1.0, 1.0)


@click.command(
    epilog="Example: medil sample --n 4 --condition ventricles=40 --also-spacing 2 2 2 -o out"
)
@folder
@force
@click.option(
    "-n", "--n", "count", type=click.IntRange(1), default=1, show_default=True,
    help="Number of samples.",
)  # fmt: skip
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Seeds the noise of the first sample; the next one has the next seed.",
)
@click.option(
    "--spacing", type=float, nargs=3, metavar="X Y Z",
    help="Voxel size in mm [default: 1 1 1; with --like the scan's own grid].",
)  # fmt: skip
@click.option(
    "--also-spacing", type=float, nargs=3, multiple=True, metavar="X Y Z",
    help="Render each sample at this voxel size too; may be repeated.",
)  # fmt: skip
@click.option(
    "--condition", "conditions", multiple=True, metavar="NAME=VALUE",
    help="Request ventricles=ML, brain=ML, contrast=RATIO or spacing=MM; may be repeated.",
)  # fmt: skip
@click.option(
    "--guidance", type=float, default=1.0, show_default=True,
    help="Weight of the conditions: above 1 exaggerates them and doubles the time.",
)  # fmt: skip
@click.option(
    "--steps",
    type=int,
    default=30,
    show_default=True,
    help="Integration steps from noise to a head.",
)
@click.option(
    "--like", type=FILE, metavar="SCAN",
    help="Samples agree with this skull-stripped scan, which may be coarse or a part of a head.",
)  # fmt: skip
@click.option(
    "--volume", "volume_index", type=int, metavar="K", help="Volume of a 4-D --like, from 0."
)
@click.option(
    "--centre", type=float, nargs=3, metavar="R A S",
    help="Middle of the head in world mm of --like [default: the middle of its bright voxels].",
)  # fmt: skip
@click.option("--latents", is_flag=True, help="Also save each latent, for `medil decode`.")
@preset
@click.option("--weights", type=FILE, help="Your own model, from `medil train-ldm`.")
@click.option(
    "--autoencoder", type=FILE, metavar="WEIGHTS",
    help="Its autoencoder [default: the one in its folder, or the release].",
)  # fmt: skip
@machine_options
def sample(
    output: Path,
    force: bool,
    count: int,
    seed: int,
    spacing: Triple | None,
    also_spacing: tuple[Triple, ...],
    conditions: tuple[str, ...],
    guidance: float,
    steps: int,
    like: Path | None,
    volume_index: int | None,
    centre: Triple | None,
    latents: bool,
    preset: str | None,
    weights: Path | None,
    autoencoder: Path | None,
    memory_bytes: int | None,
    device: str,
) -> None:
    """Sample new heads and render each at one or more voxel sizes.

    Sample k is OUTPUT/sample_SEED.nii.gz, of seed + k, in a box around the head, usually of
    160 x 192 x 160 mm; --also-spacing 2 2 2 adds sample_SEED_2x2x2mm.nii.gz, the same head.
    With --like all samples agree with a scan (super-resolution, or completion of a part of a
    head): they lie on its grid, or with --spacing in the whole box along its axes.
    """
    from medil.diffusion.sampling import check_closed_form, line
    from medil.diffusion.sampling import sample as sample_latents
    from medil.synth.attributes import range_warnings
    from medil.volume import check_room

    requested = read_conditions(conditions)
    check_options(guidance, like, volume_index, centre)
    flow, model = load_pair(preset, weights, autoencoder, device)
    flow.embed_conditions([requested])  # refuses unknown conditions
    if like:
        check_closed_form(model)
    scan, observation = read_scan(flow, like, volume_index, centre)
    grids = renderings(flow, scan, observation, spacing, also_spacing)

    line(steps)  # refuses a number out of range
    for ending, grid in grids.items():
        check_room(output / f"sample{ending}.nii.gz", grid)
    outputs = prepare(output, range(seed, seed + count), list(grids), latents, force)
    for sentence in range_warnings(requested, flow.known.spreads):
        click.echo(f"warning: {sentence}", err=True)
    on_terminal = sys.stderr.isatty()
    for own_seed, paths in outputs.items():
        report(f"sample {own_seed} ...")
        (latent,) = sample_latents(
            flow, model, [own_seed], [requested], guidance, steps, observation, progress=on_terminal
        )
        latent = replace(latent, native=grids[""], source=scan.source if scan else None)
        if latents:
            latent.save(paths["latent"], force=force)
        for ending, grid in grids.items():
            render_to_file(model, latent, grid, latent.source, paths[ending], force, memory_bytes)


def read_conditions(texts: Sequence[str]) -> dict[str, float]:
    """Attribute to value, from `name=value` texts."""
    requested = {}
    for name, value in read_settings(texts, "ventricles=40").items():
        try:
            requested[name] = float(value)
        except ValueError:
            requested[name] = math.nan
        if not math.isfinite(requested[name]):
            raise InputError(f"--condition {name} needs a number, not {value!r}.")
    return requested


def check_options(
    guidance: float, like: Path | None, volume_index: int | None, centre: Triple | None
) -> None:
    """Refuse numbers out of range and options that do not belong together."""
    if not 0 <= guidance < math.inf:
        raise InputError(f"--guidance must be zero or above, not {guidance:g}.")
    if like is None and (centre is not None or volume_index is not None):
        name = "--centre" if centre is not None else "--volume"
        raise InputError(f"{name} belongs to a scan; name it with --like.")
    if centre is not None and not all(map(math.isfinite, centre)):
        raise InputError("--centre needs three finite numbers of mm.")


def load_pair(
    preset: str | None, weights: Path | None, autoencoder: Path | None, device: str = "cpu"
) -> tuple[LatentFlow, MedIL]:
    """The latent diffusion model and the autoencoder that the options name."""
    if preset and weights:
        raise InputError("--preset and --weights both name a model; name only one.")
    from medil.diffusion.sampling import check_pair
    from medil.diffusion.training import AUTOENCODER, load_flow, load_flow_release

    if weights and not autoencoder and (weights.parent / AUTOENCODER).is_file():
        autoencoder = weights.parent / AUTOENCODER
    flow = load_flow(weights) if weights else load_flow_release(preset or "tiny")
    model = load_weights(preset, autoencoder, device)
    check_pair(flow, model)
    return flow.to(model.device), model


def read_scan(
    flow: LatentFlow, like: Path | None, volume_index: int | None, centre: Triple | None
) -> tuple[Volume | None, Observation | None]:
    """The scan of --like, and the part of it in the flow's box."""
    if like is None:
        return None, None
    from medil.diffusion.sampling import observe
    from medil.volume import load

    scan = load(like, volume_index)
    return scan, observe(scan, flow, centre)


def renderings(
    flow: LatentFlow,
    scan: Volume | None,
    observation: Observation | None,
    spacing: Triple | None,
    also: Sequence[Triple],
) -> dict[str, Grid]:
    """Grids to render on, by the ending of the file's name; the first has none.

    Voxel sizes are in the axes of the scan's file and fill the whole box.
    """
    box, source = (observation.latent_grid if observation else flow.known.grid), None
    if scan and scan.source:
        in_file, _ = box.aligned(scan.source.grid)
        source = replace(scan.source, grid=in_file)
    if scan and spacing is None:
        first, _ = target(scan.grid, scan.source, None, None)
    else:
        first, _ = target(box, source, spacing or DEFAULT_MM, None)
    grids = {"": first}
    for sizes in also:
        ending = "_" + "x".join(f"{size:g}" for size in sizes) + "mm"
        if ending in grids:
            raise InputError(f"--also-spacing {ending[1:]} is repeated; name it once.")
        grids[ending], _ = target(box, source, sizes, None)
    return grids


def prepare(
    output: Path, seeds: Sequence[int], endings: Sequence[str], latents: bool, force: bool
) -> dict[int, dict[str, Path]]:
    """Make the folder and check every output: seed -> ending -> path."""
    make_folder(output)
    outputs = {}
    for seed in seeds:
        stem = output / f"sample_{seed:04d}"
        outputs[seed] = {end: Path(f"{stem}{end}.nii.gz") for end in endings}
        for path in outputs[seed].values():
            check_image_output(path, force)
        outputs[seed]["latent"] = Path(f"{stem}.safetensors")
        if latents:
            check_output(outputs[seed]["latent"], force)
    return outputs
