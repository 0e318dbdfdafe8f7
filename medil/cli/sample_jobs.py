"""The two kinds of model behind `medil sample`, and what a call of either has in common.

With an anatomy-first model the tissue map comes first and the latent is a scan of it; the
image-only model, the paper's own, samples latents alone.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from medil.cli.options import load_weights
from medil.dials import read_settings
from medil.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from medil.anatomy.classes import LabelMap
    from medil.grid import Grid
    from medil.latent import Latent
    from medil.model.autoencoder import MedIL
    from medil.volume import Source

Triple = tuple[float, float, float]
ANATOMY_FIRST_ONLY = ("map", "save_map", "age")  # options of one kind of model
IMAGE_ONLY = ("guidance", "centre")


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
    series: str | None
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
        of_scan = {"--centre": self.centre, "--volume": self.volume_index, "--series": self.series}
        if self.like is None and (named := [k for k, v in of_scan.items() if v is not None]):
            raise InputError(f"{named[0]} belongs to a scan; name it with --like.")
        anatomy_first = self.is_anatomy_first()
        self._check_kind(anatomy_first)
        return anatomy_first_job(self) if anatomy_first else image_only_job(self)

    def is_anatomy_first(self) -> bool:
        """By the kind of --weights; without them where the preset has an anatomy-first model."""
        from medil.diffusion.anatomies import is_released
        from medil.formats import APPEARANCE
        from medil.system.tensors import read_tensors

        if self.weights is None:
            return not self.image_only and is_released(self.preset or "tiny")
        is_given = APPEARANCE.reads(read_tensors(self.weights)[1].get("format"), self.weights)
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
    from medil.diffusion import anatomies
    from medil.diffusion.anatomy_first import covariates_of, sample_latent
    from medil.diffusion.appearance import STEPS, times
    from medil.diffusion.appearance_training import load_appearance, load_appearance_release
    from medil.diffusion.sampling import check_closed_form, check_pair
    from medil.synth.box import box_grid
    from medil.volume import load

    requested = read_conditions(asked.conditions)
    steps = STEPS if asked.steps is None else asked.steps
    check_anatomy_options(asked, requested)
    anatomies.check_condition(requested)
    times(steps)  # refuses a number out of range
    if asked.weights:
        flow = load_appearance(asked.weights)
    else:
        flow = load_appearance_release(asked.preset or "tiny")
    covariates = covariates_of(flow, asked.contrast, asked.age)
    model = asked.load_autoencoder()
    check_pair(flow, model)
    flow, given = flow.to(model.device), None
    if asked.like:
        check_closed_form(model)
        scan = load(asked.like, asked.volume_index, series=asked.series)
        given = anatomies.anatomy_like(scan, flow.config.voxels)
    elif asked.map_file:
        given = anatomies.given_anatomy(asked.map_file, flow.config.voxels)

    @lru_cache(maxsize=1)  # the first one is drawn before the folder is made
    def anatomy_of(seed: int) -> anatomies.Anatomy:
        return given or anatomies.drawn_anatomy(seed, requested)

    def draw(seed: int) -> Drawn:
        anatomy = anatomy_of(seed)
        latent = sample_latent(flow, model, anatomy, seed, covariates, steps)
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
    scan = load(asked.like, asked.volume_index, series=asked.series) if asked.like else None
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
