"""Scalar attributes of synthetic heads, on which sampling can be conditioned.

The cohort knows where its tissue is, so volumes are counted in the warped label map and
contrast in the painted one, before anything is scanned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from medil.errors import InputError
from medil.grid import Grid, centres_mm
from medil.regrid import sample_nearest, sample_trilinear
from medil.synth.anatomy import OUTER_CSF, VENTRICLES, Anatomy
from medil.synth.subject import Subject

COUNT_MM = 1.5  # voxel of the grid on which volumes are counted


@dataclass(frozen=True)
class Attribute:
    """A scalar attribute that sampling can be conditioned on."""

    unit: str
    meaning: str


ATTRIBUTES = {
    "ventricles": Attribute("ml", "volume of both lateral ventricles"),
    "brain": Attribute("ml", "volume of all brain tissue with the ventricles"),
    "contrast": Attribute("1", "white matter over cortex, mean intensities"),
    "spacing": Attribute("mm", "voxel size of the scan that the latent came from"),
}
COVARIATES = ATTRIBUTES | {  # all that a sampler can be told of a scan
    "real": Attribute("1", "1 in a real scan, 0 in a synthetic head"),
    "age": Attribute("years", "age of the person"),
}


def attributes(head: Subject, anatomy: Anatomy, spacing_mm: float) -> dict[str, float]:
    """The attributes of a head of `draw_subject(anatomy, ...)` that is scanned in these voxels.

    Returns:
        A value for each of `ATTRIBUTES`, in its unit.

    Raises:
        InputError: The anatomy is not a segmentation (from `label_anatomy`).
    """
    if not anatomy.numbers:
        raise InputError(
            f"{anatomy.name} is not a segmentation, so its ventricles are unknown; "
            "draw heads on label maps."
        )
    ventricles, brain = _volumes_ml(head, anatomy)
    return {
        "ventricles": ventricles,
        "brain": brain,
        "contrast": _mean(head, anatomy, "white matter") / _mean(head, anatomy, "cortex"),
        "spacing": float(spacing_mm),
    }


def _volumes_ml(head: Subject, anatomy: Anatomy) -> tuple[float, float]:
    """Volumes of lateral ventricles and brain, counted at points `COUNT_MM` apart."""
    low, high = head.head_mm
    shape = [int(n) + 1 for n in (high - low) / COUNT_MM]
    points_mm = centres_mm(Grid.from_spacing(shape, COUNT_MM, low)).to(head.fields.device)
    source_mm = sample_trilinear(head.fields[:, :3], head.lattice, points_mm)[0].movedim(0, -1)
    labels = sample_nearest(anatomy.labels, head.painted_grid, source_mm)
    numbers = torch.tensor(anatomy.numbers, device=labels.device)[labels.int()]
    voxel_ml = COUNT_MM**3 / 1000
    ventricles = torch.isin(numbers, torch.tensor(VENTRICLES, device=labels.device))
    brain = (numbers > 0) & (numbers < 500) & (numbers != OUTER_CSF)
    return float(ventricles.sum()) * voxel_ml, float(brain.sum()) * voxel_ml


def _mean(head: Subject, anatomy: Anatomy, tissue: str) -> float:
    """Mean painted intensity of a tissue."""
    wanted = [k for k, name in enumerate(anatomy.tissues) if name == tissue]
    there = torch.isin(anatomy.labels, torch.tensor(wanted, device=anatomy.labels.device).byte())
    if not there.any():
        raise InputError(f"{anatomy.name} has no {tissue}; draw heads on whole label maps.")
    return float(head.painted[0, 0][there].mean())


@dataclass(frozen=True)
class Spread:
    """Statistics of an attribute over a training set: mean, standard deviation, range."""

    mean: float
    std: float
    low: float
    high: float


def standard_scores(
    requested: Sequence[Mapping[str, float]], spreads: Mapping[str, Spread]
) -> Tensor:
    """Requested values, in their units, in standard deviations from the mean of a training set.

    Args:
        requested: Attribute to value, of each of B samples.
        spreads: The n attributes that a model knows.

    Returns:
        [B, 2 n] float32: a score for each attribute in the order of `spreads`, 0 where no value is
        requested, then a flag for each, 1 where one is.

    Raises:
        InputError: An attribute that the model does not know.
    """
    rows = []
    for one in requested:
        unknown = [name for name in one if name not in spreads]
        if unknown:
            known = ", ".join(spreads)
            raise InputError(f"there is no condition {unknown[0]!r}; choose from {known}.")
        scores = [
            (one[name] - s.mean) / (s.std or 1.0) if name in one else 0.0
            for name, s in spreads.items()
        ]
        rows.append([*scores, *(float(name in one) for name in spreads)])
    return torch.tensor(rows, dtype=torch.float32)


def range_warnings(requested: Mapping[str, float], spreads: Mapping[str, Spread]) -> list[str]:
    """A warning for each requested value outside the range of the training data."""
    return [
        f"{name} = {value:g} {COVARIATES[name].unit} is outside the range of the training data "
        f"({spreads[name].low:.3g} to {spreads[name].high:.3g}); the sample may fall short of it."
        for name, value in requested.items()
        if not spreads[name].low <= value <= spreads[name].high
    ]
