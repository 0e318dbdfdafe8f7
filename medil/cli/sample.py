"""`medil sample`: new heads from a latent diffusion model.

A sample is one latent; each voxel size is a rendering of it. With an anatomy-first model the
tissue map comes first and the latent is a scan of it; the image-only model, the paper's own,
samples latents alone. A `Job` is what both have in common.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from medil.cli.options import (
    FILE,
    check_image_output,
    folder,
    force,
    load_weights,
    machine_options,
    preset,
    report,
    target,
)
from medil.dials import read_settings
from medil.errors import InputError
from medil.system.files import check_output, make_folder

if TYPE_CHECKING:
    from torch import Tensor

    from medil.anatomy.classes import LabelMap
    from medil.grid import Grid
    from medil.latent import Latent
    from medil.model.autoencoder import MedIL
    from medil.volume import Source

Triple = tuple[float, float, float]
DEFAULT_MM: Triple = (1.0, 1.0, 1.0)
ANATOMY_FIRST_ONLY = ("map", "save_map", "age")  # options of one kind of model
IMAGE_ONLY = ("guidance", "centre")


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
    help="Anatomy: ventricles=ML, brain=ML or asymmetry=A; --image-only has contrast=RATIO and "
    "spacing=MM instead of asymmetry; may be repeated.",
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
    **options,
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


@dataclass(frozen=True)
class Drawn:
    """One sample: its latent, the model that renders it, and its map, if it has one."""

    model: MedIL
    latent: Latent
    tissues: LabelMap | None = None
    strip: bool = True  # air of the map is air of the scan

    def on(
        self, grid: Grid, memory_bytes: int | None
    ) -> tuple[LabelMap | None, Callable[[int, bool], Iterator[tuple[int, Tensor]]]]:
        """The map on a grid, and what renders the sample there in slabs."""
        field, progress = self.model.field(self.latent), sys.stderr.isatty()
        options: dict[str, Any] = {"memory_bytes": memory_bytes, "progress": progress}
        if self.tissues is None:
            return None, partial(field.slabs, grid, **options)
        from medil.diffusion.anatomy_first import slabs

        tissues = self.tissues.resampled(grid)
        return tissues, partial(slabs, field, tissues, strip=self.strip, **options)


@dataclass(frozen=True)
class Job:
    """What samples of one call have in common.

    Args:
        box: What --spacing divides into voxels, RAS+.
        native: Grid of the samples without --spacing; `box` in voxels of 1 mm when None.
        source: File whose format and orientation they take.
        draw: The sample of a seed.
        check: Refuses, before anything is written, what the sample of a seed would.
    """

    box: Grid
    native: Grid | None
    source: Source | None
    draw: Callable[[int], Drawn]
    check: Callable[[int], object]


@dataclass(frozen=True)
class Asked:
    """What the options ask for; the fields are the command's parameters."""

    map_file: Path | None
    save_map: bool
    conditions: tuple[str, ...]
    contrast: float | None
    age: float | None
    guidance: float | None
    steps: int | None
    like: Path | None
    volume_index: int | None
    centre: Triple | None
    image_only: bool
    preset: str | None
    weights: Path | None
    autoencoder: Path | None
    device: str

    def job(self) -> Job:
        """The job of the kind of model that is asked for, with everything refused that must be."""
        if self.preset and self.weights:
            raise InputError("--preset and --weights both name a model; name only one.")
        if self.like is None and (self.centre is not None or self.volume_index is not None):
            name = "--centre" if self.centre is not None else "--volume"
            raise InputError(f"{name} belongs to a scan; name it with --like.")
        anatomy_first = self.is_anatomy_first()
        self._check_kind(anatomy_first)
        return anatomy_first_job(self) if anatomy_first else image_only_job(self)

    def is_anatomy_first(self) -> bool:
        """By the kind of --weights; without them where the preset has an anatomy-first model."""
        from medil.diffusion.anatomy_first import is_released
        from medil.diffusion.appearance_training import FORMAT
        from medil.system.tensors import read_tensors

        if self.weights is None:
            return not self.image_only and is_released(self.preset or "tiny")
        is_given = read_tensors(self.weights)[1].get("format") == FORMAT
        if is_given and self.image_only:
            raise InputError(f"{self.weights} is an anatomy-first model; leave out --image-only.")
        return is_given

    def _check_kind(self, anatomy_first: bool) -> None:
        """Refuse options of the other kind of model."""
        for name in IMAGE_ONLY if anatomy_first else ANATOMY_FIRST_ONLY:
            value = getattr(self, "map_file" if name == "map" else name)
            if value is None or value is False:
                continue
            option = "--" + name.replace("_", "-")
            if anatomy_first:
                raise InputError(f"{option} belongs to --image-only; leave one of them out.")
            if self.image_only:
                raise InputError(f"{option} needs a tissue map; leave out --image-only.")
            raise InputError(
                f"{option} needs an anatomy-first model; name one of `medil train-appearance` "
                "with --weights."
            )

    def load_autoencoder(self) -> MedIL:
        """The autoencoder: named, in the folder of --weights, or of the preset's release."""
        from medil.diffusion.training import AUTOENCODER

        named = self.autoencoder
        if self.weights and not named and (self.weights.parent / AUTOENCODER).is_file():
            named = self.weights.parent / AUTOENCODER
        return load_weights(self.preset, named, self.device)


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


# Kinds of models


def anatomy_first_job(asked: Asked) -> Job:
    """Scans of drawn anatomies, of the map of a file, or of the segmentation of a scan."""
    from medil.diffusion import anatomy_first
    from medil.diffusion.appearance import STEPS, times
    from medil.diffusion.appearance_training import load_appearance, load_appearance_release
    from medil.diffusion.sampling import check_closed_form, check_pair
    from medil.synth.box import box_grid
    from medil.volume import load

    requested = read_conditions(asked.conditions)
    steps = STEPS if asked.steps is None else asked.steps
    check_anatomy_options(asked, requested)
    anatomy_first.check_condition(requested)
    times(steps)  # refuses a number out of range
    if asked.weights:
        flow = load_appearance(asked.weights)
    else:
        flow = load_appearance_release(asked.preset or "tiny")
    covariates = anatomy_first.covariates_of(flow, asked.contrast, asked.age)
    model = asked.load_autoencoder()
    check_pair(flow, model)
    flow, given = flow.to(model.device), None
    if asked.like:
        check_closed_form(model)
        scan = load(asked.like, asked.volume_index)
        given = anatomy_first.anatomy_like(scan, flow.config.voxels)
    elif asked.map_file:
        given = anatomy_first.given_anatomy(asked.map_file, flow.config.voxels)

    @lru_cache(maxsize=1)  # the first one is drawn before the folder is made
    def anatomy_of(seed: int) -> anatomy_first.Anatomy:
        return given or anatomy_first.drawn_anatomy(seed, requested)

    def draw(seed: int) -> Drawn:
        anatomy = anatomy_of(seed)
        latent = anatomy_first.sample_latent(flow, model, anatomy, seed, covariates, steps)
        return Drawn(model, latent, anatomy.tissues, strip=anatomy.like is None)

    if given:
        return Job(given.native, given.native, given.source, draw, anatomy_of)
    return Job(box_grid(1.0), None, None, draw, anatomy_of)


def check_anatomy_options(asked: Asked, requested: Mapping[str, float]) -> None:
    """Refuse two sources of the anatomy."""
    named = {"--map": asked.map_file, "--like": asked.like, "--condition": requested}
    given = [name for name, value in named.items() if value]
    if len(given) > 1:
        raise InputError(f"{given[0]} and {given[1]} both set the anatomy; name only one.")


def image_only_job(asked: Asked) -> Job:
    """Samples of a latent flow alone, which may agree with a scan."""
    from medil.diffusion.sampling import (
        SHIFT,
        STEPS,
        check_closed_form,
        check_pair,
        line,
        observe,
    )
    from medil.diffusion.sampling import sample as sample_latents
    from medil.diffusion.training import load_flow, load_flow_release
    from medil.synth.attributes import range_warnings
    from medil.volume import load

    contrast = () if asked.contrast is None else (f"contrast={asked.contrast}",)
    requested = read_conditions((*asked.conditions, *contrast))
    guidance = 1.0 if asked.guidance is None else asked.guidance
    steps = STEPS if asked.steps is None else asked.steps
    check_numbers(guidance, asked.centre)
    flow = load_flow(asked.weights) if asked.weights else load_flow_release(asked.preset or "tiny")
    model = asked.load_autoencoder()
    check_pair(flow, model)
    flow = flow.to(model.device)
    flow.embed_conditions([requested])  # refuses unknown conditions
    if asked.like:
        check_closed_form(model)
    scan = load(asked.like, asked.volume_index) if asked.like else None
    observation = observe(scan, flow, asked.centre) if scan else None
    line(steps, SHIFT)  # refuses a number out of range
    warnings = range_warnings(requested, flow.known.spreads)

    def warn(seed: int) -> None:
        for sentence in warnings:
            click.echo(f"warning: {sentence}", err=True)

    def draw(seed: int) -> Drawn:
        (latent,) = sample_latents(
            flow, model, [seed], [requested], guidance, steps, observation,
            progress=sys.stderr.isatty(),
        )  # fmt: skip
        return Drawn(model, latent)

    box = observation.latent_grid if observation else flow.known.grid
    native, source = (scan.grid, scan.source) if scan else (None, None)
    return Job(box, native, source, draw, warn)


def check_numbers(guidance: float, centre: Triple | None) -> None:
    """Refuse numbers out of range."""
    if not 0 <= guidance < math.inf:
        raise InputError(f"--guidance must be zero or above, not {guidance:g}.")
    if centre is not None and not all(map(math.isfinite, centre)):
        raise InputError("--centre needs three finite numbers of mm.")


# Grids and files


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
