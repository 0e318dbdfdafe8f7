"""`medil sample`: new heads from a latent diffusion model.

A sample is one latent; each voxel size is a rendering of it. With an anatomy-first model the
tissue map comes first and the latent is a scan of it; the image-only model, the paper's own,
samples latents alone. A `Job` is what both have in common.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from medil.cli.options import (
    FILE,
    check_image_output,
    folder,
    force,
    machine_options,
    preset,
    report,
    target,
)
from medil.cli.sample_jobs import Asked, Job, Triple
from medil.errors import InputError
from medil.system.files import check_output, make_folder

if TYPE_CHECKING:
    from medil.grid import Grid

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
    help="Seeds the first sample; the next one has the next seed.",
)
@click.option(
    "--spacing", type=float, nargs=3, metavar="X Y Z",
    help="Voxel size in mm [default: 1 1 1; with --map or --like that file's own grid].",
)  # fmt: skip
@click.option(
    "--also-spacing", type=float, nargs=3, multiple=True, metavar="X Y Z",
    help="Render each sample at this voxel size too; may be repeated.",
)  # fmt: skip
@click.option(
    "--map", "map_file", type=FILE, metavar="LABELS",
    help="Scans of this label map, in FreeSurfer's numbers, ours, or three tissues.",
)  # fmt: skip
@click.option(
    "--save-map", is_flag=True, help="Also save each scan's tissue map beside it, on its grid."
)
@click.option(
    "--condition", "conditions", multiple=True, metavar="NAME=VALUE",
    help="Anatomy: ventricles=ML, brain=ML or asymmetry=A; --image-only has contrast=RATIO, "
    "spacing=MM and real=0 or 1 instead of asymmetry; may be repeated.",
)  # fmt: skip
@click.option("--contrast", type=float, help="White matter over cortex, mean intensities.")
@click.option("--age", type=float, metavar="YEARS", help="Age that the scan looks like.")
@click.option(
    "--guidance", type=float,
    help="Of --image-only: above 1 exaggerates conditions and doubles the time [default: 1].",
)  # fmt: skip
@click.option(
    "--steps", type=int,
    help="Integration steps from noise to a head [default: 8; 30 with --image-only].",
)  # fmt: skip
@click.option(
    "--like", type=FILE, metavar="SCAN",
    help="Samples agree with this skull-stripped scan, which may be coarse; its segmentation is "
    "their map. --image-only also completes a scan of a part of a head.",
)  # fmt: skip
@click.option(
    "--volume", "volume_index", type=int, metavar="K", help="Volume of a 4-D --like, from 0."
)
@click.option(
    "--series", metavar="NUMBER", help="Number or UID of the series in a --like DICOM folder."
)
@click.option(
    "--centre", type=float, nargs=3, metavar="R A S",
    help="Of --image-only: middle of the head in world mm of --like [default: the middle of its "
    "bright voxels].",
)  # fmt: skip
@click.option("--latents", is_flag=True, help="Also save each latent, for `medil decode`.")
@click.option(
    "--image-only", is_flag=True,
    help="Sample without a map, as the paper does [default where no anatomy-first model exists].",
)  # fmt: skip
@preset
@click.option(
    "--weights", type=FILE, help="Your own model, from `medil train-appearance` or `train-ldm`."
)
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
    latents: bool,
    save_map: bool,
    memory_bytes: int | None,
    **options: Any,
) -> None:
    """Sample new heads and render each at one or more voxel sizes.

    Sample k is OUTPUT/sample_SEED.nii.gz, of seed + k, in a box around the head of
    160 x 192 x 160 mm; --also-spacing 2 2 2 adds sample_SEED_2x2x2mm.nii.gz, the same head, and
    --save-map each file's labels, sample_SEED_map.nii.gz. With --map the scans are of your own
    label map; with --like they agree with a scan (super-resolution). Both lie on that file's
    grid, or with --spacing in its box.
    """
    from medil.volume import check_room, save_slabs

    asked = Asked(save_map=save_map, **options)
    job = asked.job()
    grids = renderings(job, spacing, also_spacing)
    for ending, grid in grids.items():
        check_room(output / f"sample{ending}.nii.gz", grid)
    job.check(seed)
    outputs = prepare(output, range(seed, seed + count), list(grids), latents, save_map, force)
    for own_seed, paths in outputs.items():
        report(f"sample {own_seed} ...")
        drawn = job.draw(own_seed)
        if latents:
            latent = replace(drawn.latent, native=grids[""], source=job.source)
            latent.save(paths["latent"], force=force)
        for ending, grid in grids.items():
            tissues, make_slabs = drawn.on(grid, memory_bytes)
            save_slabs(paths[ending], grid, job.source, make_slabs, force, memory_bytes)
            if save_map and tissues:
                tissues.save(paths[f"{ending}_map"], force, like=job.source)


def renderings(job: Job, spacing: Triple | None, also: Sequence[Triple]) -> dict[str, Grid]:
    """Grids to render on, by the ending of the file's name; the first has none.

    Voxel sizes are in the axes of the job's file and fill the whole box.
    """
    box, source = job.box, None
    if job.source:
        in_file, _ = box.aligned(job.source.grid)
        source = replace(job.source, grid=in_file)
    if job.native and spacing is None:
        first, _ = target(job.native, job.source, None, None)
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
    output: Path, seeds: Sequence[int], endings: Sequence[str], latents: bool, maps: bool,
    force: bool,
) -> dict[int, dict[str, Path]]:  # fmt: skip
    """Make the folder and check every output: seed -> ending -> path."""
    make_folder(output)
    endings = [*endings, *(f"{ending}_map" for ending in endings if maps)]
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
