"""Anatomy-first sampling: a tissue map, then a scan of it.

The map is drawn with asked volumes (`medil.anatomy.draw`), given by the user, or segmented from a
scan; the appearance flow then samples the latent of that map, so the labels fit the scan by
construction. The flow sees no place: a map of any size and direction can be sampled.

Departure from the paper, whose diffusion model draws anatomy and appearance at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from scipy import ndimage
from torch import Tensor

from medil.anatomy.classes import LabelMap
from medil.diffusion.anatomies import (
    Anatomy,
    anatomy_like,
    check_condition,
    drawn_anatomy,
    given_anatomy,
    latent_grid,
)
from medil.diffusion.appearance import STEPS, AppearanceFlow, sample_appearance
from medil.diffusion.appearance_training import load_appearance_release
from medil.diffusion.sampling import (
    check_closed_form,
    check_pair,
    data_consistency,
    last_steps,
    observe_in,
)
from medil.errors import InputError
from medil.grid import Grid
from medil.io.intensity import Intensity
from medil.latent import Latent
from medil.model.autoencoder import MedIL
from medil.model.field import Field
from medil.model.weights import load_release
from medil.synth.attributes import Spread
from medil.volume import Volume

BLANK_PLANES = 16  # of air that are written at once
UNITS = {"age": "years"}  # of covariates that have one


# Covariates


def covariates_of(
    flow: AppearanceFlow, contrast: float | None = None, age: float | None = None
) -> dict[str, float]:
    """The covariates that a sample is told.

    Beside those that are asked for: `real` is 1, so that samples look like real scans, unless
    the flow has seen none.

    Args:
        flow: The flow, which holds the ranges that it was trained on.
        contrast: White matter over cortex, mean intensities; open when None.
        age: Years; open when None.

    Raises:
        InputError: A covariate that the flow does not know, or a value outside its range.
    """
    spreads, asked = flow.known.spreads, {"contrast": contrast, "age": age}
    told = {name: value for name, value in asked.items() if value is not None}
    for name, value in told.items():
        _check_range(name, value, spreads)
    if "real" in spreads:
        told["real"] = spreads["real"].high
    return told


def _check_range(name: str, value: float, spreads: Mapping[str, Spread]) -> None:
    if name not in spreads:
        raise InputError(f"this model was trained without {name}; leave it open.")
    low, high = spreads[name].low, spreads[name].high
    if not low <= value <= high:
        unit = f" {UNITS[name]}" if name in UNITS else ""
        raise InputError(
            f"{name} = {value:g} is outside {low:.4g} to {high:.4g}{unit}, the range of the scans "
            "that this model was trained on."
        )


# The latent


@torch.inference_mode()
def sample_latent(
    flow: AppearanceFlow,
    model: MedIL,
    anatomy: Anatomy,
    seed: int,
    covariates: Mapping[str, float] | None = None,
    steps: int = STEPS,
) -> Latent:
    """The latent of an anatomy, placed in mm, for `model.decode` on any grid.

    It agrees with the scan `anatomy.like`, if any, by data consistency through the closed form, in
    the cells that the scan covers.

    Args:
        flow: Trained on latents of the model.
        model: The autoencoder.
        anatomy: Its map, and a scan to agree with.
        seed: Of the noise. On maps of one shape, each place has the same noise.
        covariates: As `covariates_of` gives.
        steps: Of the integration.

    Returns:
        The latent; its intensities are 0 ... 1, or those of the scan.

    Raises:
        InputError: Weights that do not belong together, a map without whole cells or tissue, an
            unknown covariate, no step, or a scan and a model without the closed form.
    """
    check_pair(flow, model)
    tissues, like = anatomy.tissues, anatomy.like
    cells, labels, intensity = latent_grid(tissues, flow), tissues.labels, Intensity(0.0, 1.0)
    if like is None:
        mean = sample_appearance(flow, labels, seed, covariates, steps)
    else:
        observation = observe_in(like, cells)
        correct = data_consistency(observation, model)
        mean = sample_appearance(flow, labels, seed, covariates, steps, correct=correct)
        exact = data_consistency(observation, model, whole=True)
        for _ in range(last_steps(steps)):
            mean = exact(mean[None])[0]
        intensity = observation.intensity
    mean = mean.cpu()
    log_var = torch.full_like(mean, -30.0)  # a sample is a point, not a Gaussian
    own = anatomy.native, intensity, anatomy.source, model.weights_id
    return Latent(mean, log_var, cells, *own)


# The scan


def slabs(
    image: Field,
    tissues: LabelMap,
    axis: int = 0,
    descending: bool = False,
    *,
    strip: bool = True,
    progress: bool = False,
    memory_bytes: int | None = None,
) -> Iterator[tuple[int, Tensor]]:
    """The scan of a map, on the map's grid, in slabs.

    Only the box of its tissue is rendered; beyond, the scan is `image.latent.intensity.low`.

    Args:
        image: The image that a latent of `sample_latent` stands for.
        tissues: The map, resampled to the grid of the scan.
        axis: As the other arguments, that of `Field.slabs`.
        descending: From the end of the axis.
        strip: Air of the map is air of the scan, as in a skull-stripped one.
        progress: Show a bar.
        memory_bytes: Budget of the process.

    Returns:
        Index of each slab's first voxel along `axis`, and the slab: [D, H, W] float32.
    """
    grid, labels, low = tissues.grid, tissues.labels, image.latent.intensity.low
    found = ndimage.find_objects((labels > 0).numpy().astype("uint8"))
    box = found[0] if found else (slice(0, 0),) * 3
    ends = [(0, box[axis].start), (box[axis].stop, grid.shape[axis])]
    before, after = reversed(ends) if descending else ends
    yield from _blanks(grid, axis, descending, before, low)
    if found:
        inner = grid.crop([s.start for s in box], [s.stop - s.start for s in box])
        rendered = image.slabs(
            inner, axis, descending, progress=progress, memory_bytes=memory_bytes
        )
        for start, slab in rendered:
            first, count = box[axis].start + start, slab.shape[axis]
            whole = _blank(grid, axis, count, low)
            whole[_with(box, axis, slice(None))] = slab
            if strip:
                here = _with((slice(None),) * 3, axis, slice(first, first + count))
                whole.masked_fill_(labels[here] == 0, low)
            yield first, whole
    yield from _blanks(grid, axis, descending, after, low)


def _with(block: tuple[slice, ...], axis: int, own: slice) -> tuple[slice, ...]:
    """A block with another slice along one axis."""
    return (*block[:axis], own, *block[axis + 1 :])


def _blank(grid: Grid, axis: int, count: int, value: float) -> Tensor:
    """`count` planes of a grid across an axis, of one value."""
    shape = list(grid.shape)
    shape[axis] = count
    return torch.full(shape, value)


def _blanks(
    grid: Grid, axis: int, descending: bool, ends: tuple[int, int], value: float
) -> Iterator[tuple[int, Tensor]]:
    """The planes first to last + 1 of a grid in slabs of one value."""
    starts = range(*ends, BLANK_PLANES)
    for start in reversed(starts) if descending else starts:
        yield start, _blank(grid, axis, min(BLANK_PLANES, ends[1] - start), value)


# Whole samples


@dataclass(frozen=True)
class Sample:
    """A labelled synthetic scan.

    Args:
        volume: The scan, float32, 0 in air and about 1 at its brightest; in the units of the scan
            that it is like, if any.
        tissues: The tissue map on the scan's grid, for `tissues.save(path)`.
        latent: What `model.decode` renders on any other grid, without the map.
        facts: seed and covariates; of drawn anatomies also what `draw_anatomy` tells (ml).
    """

    volume: Volume
    tissues: LabelMap
    latent: Latent
    facts: dict[str, Any]


def sample(
    seed: int = 0,
    *,
    tissue_map: LabelMap | str | Path | None = None,
    like: Volume | None = None,
    condition: Mapping[str, float] | None = None,
    contrast: float | None = None,
    age: float | None = None,
    spacing_mm: float | Sequence[float] | None = None,
    steps: int = STEPS,
    flow: AppearanceFlow | None = None,
    model: MedIL | None = None,
) -> Sample:
    """Sample one labelled scan of a skull-stripped T1w head: the same for the same arguments.

    Args:
        seed: Seeds the anatomy, unless it is given, and the appearance.
        tissue_map: A map of your own, or the file of one: FreeSurfer's numbers, `CLASSES`, or three
            tissues, in voxels of about 1 mm on any grid (`medil.anatomy.classes.load_map`).
        like: A skull-stripped scan whose own segmentation is the map, and with which the sample
            agrees: where the scan averages over voxels, the sample does too. The anatomy
            ends where the scan ends.
        condition: Asked volumes of the drawn anatomy: `ventricles` and `brain` in ml, `asymmetry`
            of the ventricles (right - left) / (right + left); within 1 %.
        contrast: White matter over cortex; open when None.
        age: Years; open when None.
        spacing_mm: Voxel size, one number or one an axis; when None 1 mm, or the voxels of
            `tissue_map` or `like`.
        steps: Of the integration from noise to a latent.
        flow: The appearance flow; the release `tiny-appearance` when None.
        model: Its autoencoder; the release `tiny` when None.

    Returns:
        The scan and its map in the box of `tissue_map` or of `like`, otherwise in a box of
        160 x 192 x 160 mm around (0, 0, 0).

    Raises:
        InputError: Both `tissue_map` and `like`, or one of them and `condition`; an unknown
            condition, or one that no anatomy reaches; a covariate outside the range of the
            training data; a file that is no label map, a scan that cannot be segmented; weights
            that do not belong together, or no copy of them.

    Example:
        >>> import medil
        >>> one = medil.sample(seed=3, condition={"ventricles": 40})  # doctest: +SKIP
        >>> medil.save(one.volume, "scan.nii.gz")  # doctest: +SKIP
        >>> one.tissues.save("scan_map.nii.gz")  # doctest: +SKIP
        >>> medil.sample(condition={"teeth": 32})  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        medil.errors.InputError: there is no condition 'teeth' of an anatomy; choose from ...
    """
    if sum(given is not None for given in (tissue_map, like, condition)) > 1:
        raise InputError("the anatomy comes from tissue_map, like or condition; name one of them.")
    check_condition(condition or {})  # before weights are read
    flow = flow or load_appearance_release()
    model = model or load_release("tiny")
    covariates = covariates_of(flow, contrast, age)
    if like is not None:
        check_closed_form(model)
        anatomy = anatomy_like(like, flow.config.voxels)
    elif tissue_map is not None:
        anatomy = given_anatomy(tissue_map, flow.config.voxels)
    else:
        anatomy = drawn_anatomy(seed, condition)
    grid = anatomy.native if spacing_mm is None else anatomy.native.with_spacing(spacing_mm)
    latent = sample_latent(flow, model, anatomy, seed, covariates, steps)
    tissues = anatomy.tissues.resampled(grid)
    data = torch.empty(grid.shape)
    for start, slab in slabs(model.field(latent), tissues, strip=like is None):
        data[start : start + len(slab)] = slab
    facts = {"seed": seed, **anatomy.facts, "covariates": covariates}
    return Sample(Volume(data, grid, anatomy.source), tissues, latent, facts)
