"""Find a user's own scans, check them before any work, name them, and choose their masks.

Nothing is computed before every file has been read once, so that a damaged file is named
after seconds and not after an hour.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import ndimage

from eval.metrics import brain_mask, head_mask
from eval.rows import digest
from eval.subjects import Scan, Subject
from medil.data.manifest import datasets, entries
from medil.errors import InputError
from medil.grid import Grid
from medil.io.listing import Listed, list_images
from medil.io.notices import notices
from medil.io.source import as_one_of_many
from medil.system.files import file_sha256
from medil.system.memory import require_memory
from medil.volume import Volume, load, replace_nonfinite, robust_intensity

PLAN = "plan.json"  # beside the rows of a report while it is built
LEAST_VOXELS = 12  # along each axis; fewer leave nothing to halve or to filter
VOXEL_BYTES = 32  # of a reconstruction and its metrics
ZERO_FACES = 0.98  # share of exact zeros on the faces of a stripped scan
UNEVEN = 2.0  # largest over smallest voxel side above which a page says so
AIR_HU = -500.0
RULES = {
    "given": "the given mask",
    "finite": "what is a number",
    "zeros": "what is not zero",
    "threshold": "the head, by threshold",
}


@dataclass(frozen=True)
class Checked:
    """One input after the check that read it."""

    name: str  # in the report
    path: str  # absolute; never shown
    mask: str  # the mask's path, empty if none was given
    data_sha256: str  # of the file's bytes, and of the mask's if there is one
    shape: tuple[int, ...]  # voxels along R, A, S
    spacing_mm: tuple[float, ...]  # along R, A, S
    orientation: str  # of the file, such as LPS
    rule: str  # of the mask, a key of `RULES`
    mask_cm3: float  # volume inside the mask
    mask_share: float  # the same as a share of the scan
    warnings: tuple[str, ...]  # sentences; each was measured
    series: str | None = None  # UID of a DICOM series; never shown


@dataclass(frozen=True)
class Plan:
    """What a report is about."""

    release: str  # name, or path of weights
    coders: tuple[str, ...]  # the user's own, each ``FILE.py:NAME``
    volumes: tuple[Checked, ...]


# Finding


def find(
    places: Sequence[str | Path], suffix: str = "T1w", split: str | None = None
) -> tuple[list[Listed], list[str]]:
    """The volumes of `medil.io.listing.list_images`, which names and selects them.

    Returns:
        The volumes, and a sentence for each file that is left out and on how places were read.

    Raises:
        InputError: What `list_images` refuses, an unknown format, two volumes of one name, or none.
    """
    found = list_images(places, suffix, split)
    if not found.images:
        raise InputError(" ".join(found.left_out) or "no volume is named.")
    inputs = [
        image._replace(path=image.path.absolute(), mask=image.mask and image.mask.absolute())
        for image in found.images
    ]
    by_name: dict[str, Listed] = {}
    for entry in inputs:
        other = by_name.setdefault(entry.name, entry)
        if other is not entry:
            raise InputError(
                f"two volumes are called {entry.name!r}: {other.path} and {entry.path}; name them "
                "in the column 'subject' of a CSV table."
            )
    return inputs, [*(f"left out: {text}" for text in found.left_out), *found.notes]


# Checking


def check(entry: Listed) -> Checked:
    """Read a volume once: reject what cannot be evaluated, note what a reader should know.

    Raises:
        InputError: The file, and what is wrong with it.
    """
    try:
        loaded = load(entry.path, series=entry.series)
        volume, finite = _finite(loaded)
        if min(volume.grid.shape) < LEAST_VOXELS:
            sizes = " x ".join(map(str, volume.grid.shape))
            raise InputError(f"{sizes} voxels are too few; {LEAST_VOXELS} an axis are needed.")
        require_memory(volume.grid.n_voxels, VOXEL_BYTES, "this volume")
        scale = robust_intensity(loaded.data)
        scale.check(volume.data)
        mask, rule = mask_of(volume, entry.mask, finite)
    except InputError as error:
        text = as_one_of_many(str(error))
        raise InputError(text if str(entry.path) in text else f"{entry.path}: {text}") from error
    data = volume.data.double().numpy()
    voxel_mm3 = float(np.prod(volume.grid.spacing_mm))
    return Checked(
        name=entry.name,
        path=str(entry.path),
        mask=str(entry.mask or ""),
        data_sha256=_digest(entry),
        shape=volume.grid.shape,
        spacing_mm=tuple(round(s, 4) for s in volume.grid.spacing_mm),
        orientation=volume.source.orientation if volume.source else "RAS",
        rule=rule,
        mask_cm3=float(mask.sum() * voxel_mm3 / 1000),
        mask_share=float(mask.mean()),
        warnings=(
            *(loaded.source.notes if loaded.source else ()),
            *notices(volume.data, volume.grid.spacing_mm, scale),
            *warnings_about(data, mask, rule, volume.grid, int((~finite).sum())),
            *([] if entry.files else seen_in_training(file_sha256(entry.path))),
        ),
        series=entry.series,
    )


def _finite(volume: Volume) -> tuple[Volume, np.ndarray]:
    """The volume, continued into voxels without a value, and [D, H, W] bool where it has one."""
    data, _ = replace_nonfinite(volume.data)
    return volume.with_data(data), torch.isfinite(volume.data).numpy()


def _digest(entry: Listed) -> str:
    """Of all bytes that the numbers depend on; a detached header's data file included."""
    paths = [*(entry.files or [entry.path]), *([entry.mask] if entry.mask else [])]
    if entry.path.name.lower().endswith(".nhdr"):
        paths += [p for p in sorted(entry.path.parent.iterdir()) if p.stem == entry.path.stem]
    hashes = [file_sha256(path) for path in paths]
    return hashes[0] if len(hashes) == 1 else digest(hashes)


def seen_in_training(sha256: str) -> list[str]:
    """A warning if a file is in the training set of the releases."""
    seen = {e.sha256 for name in datasets() for e in entries(name, "train")}
    if sha256 not in seen:
        return []
    return ["The release may have seen this very scan in training, which flatters its numbers."]


def mask_of(
    volume: Volume, given: Path | None = None, finite: np.ndarray | None = None
) -> tuple[np.ndarray, str]:
    """[D, H, W] bool: where a finite volume is scored, and by which of `RULES`.

    A given mask's file lies on the volume's grid; what is not zero counts. Voxels that had no
    value (`finite` is False) never count; where they surround the object, they alone do not.

    Raises:
        InputError: The mask is empty or lies on another grid, or there is no object to find.
    """
    finite = np.ones(volume.grid.shape, bool) if finite is None else finite
    if given is None:
        if is_stripped(finite):
            return finite, "finite"
        content, rule = content_mask(volume.data.double().numpy())
        return content & finite, rule
    mask = load(given)
    if not mask.grid.shape == volume.grid.shape or not mask.grid.is_close(volume.grid, 1e-2):
        raise InputError(f"its mask {given.name} lies on another grid; give one on the same.")
    inside = (mask.data.numpy() != 0) & finite
    if not inside.any():
        raise InputError(f"its mask {given.name} is empty.")
    return inside, "given"


def content_mask(data: np.ndarray) -> tuple[np.ndarray, str]:
    """A mask [D, H, W] from what a finite volume holds, and its rule.

    ``zeros`` where exact zeros surround the object (a stripped or masked scan), else ``threshold``.

    Raises:
        InputError: The volume is constant.
    """
    if is_stripped(data):
        return brain_mask(data != 0), "zeros"
    lowest = data.min()
    return head_mask(data - lowest if lowest < 0 else data), "threshold"


def is_stripped(data: np.ndarray) -> bool:
    """Whether exact zeros surround the object: they fill the six faces, or nearly.

    A raw scan has noise there, or a neck that leaves through one of them.
    """
    zero = np.asarray(data) == 0
    faces = [np.take(zero, end, axis=axis).ravel() for axis in range(3) for end in (0, -1)]
    return bool(np.concatenate(faces).mean() >= ZERO_FACES and not zero.all())


# Warning


def warnings_about(
    data: np.ndarray, mask: np.ndarray, rule: str, grid: Grid, n_replaced: int = 0
) -> list[str]:
    """Sentences that a reader should know before trusting the numbers; only what was measured.

    `n_replaced` voxels were not finite; `rule` is that of the mask, which holds a voxel or more.
    """
    found, spacing_mm = [], grid.spacing_mm
    if max(spacing_mm) > UNEVEN * min(spacing_mm):
        found.append(
            f"Voxels are {max(spacing_mm) / min(spacing_mm):.1f} times as long as wide; "
            "detail along their length was never acquired."
        )
    if n_replaced:
        found.append(f"{n_replaced:,} voxels were NaN or Inf and are not scored.")
    if data.min() < AIR_HU:
        found.append(
            f"Intensities reach down to {data.min():.0f}, as in CT. The release was trained on "
            "T1-weighted MRI."
        )
    elif rule == "zeros" and (ratio := inside_over_rim(data, mask, spacing_mm)) < 1:
        found.append(
            f"The rim of the brain is brighter than its inside (ratio {ratio:.2f}), which is "
            "unusual for T1-weighted scans, on which the release was trained."
        )
    if rule == "threshold":
        found.append(
            "The mask was found by a threshold and may hold more than brain; then Dice, pieces "
            "and handles say little."
        )
    if not 0.02 <= mask.mean() <= 0.9:
        found.append(f"The mask covers {100 * mask.mean():.1f} % of the volume; look at it first.")
    return found


def inside_over_rim(data: np.ndarray, mask: np.ndarray, spacing_mm: Sequence[float]) -> float:
    """Median intensity 8 to 20 mm deep in a mask, over that of its outer 4 mm.

    White matter lies deeper than the cortex, so a stripped T1-weighted brain is above 1 and
    one whose grey matter or fluid is brighter is below. NaN where the mask is too thin.
    """
    depth_mm = ndimage.distance_transform_edt(np.pad(mask, 1), sampling=spacing_mm)
    depth_mm = depth_mm[1:-1, 1:-1, 1:-1]
    deep, rim = data[(depth_mm > 8) & (depth_mm <= 20)], data[(depth_mm > 0) & (depth_mm <= 4)]
    if not deep.size or not rim.size or not np.median(rim) > 0:
        return float("nan")
    return float(np.median(deep) / np.median(rim))


# Loading


def read(checked: Checked) -> Scan:
    """A checked volume and its mask, as the experiments take them."""
    volume, finite = _finite(load(checked.path, series=checked.series))
    mask, _ = mask_of(volume, Path(checked.mask) if checked.mask else None, finite)
    return Scan(volume, mask)


def subject(checked: Checked, conditions: Sequence[str]) -> Subject:
    """A checked volume as a subject of an experiment."""
    return Subject(checked.name, checked.data_sha256, tuple(conditions), partial(read, checked))


def write_plan(plan: Plan, path: Path) -> None:
    """Keep what pages need to read the volumes again; it holds paths and is never published."""
    path.write_text(json.dumps(asdict(plan)), encoding="utf-8")


def read_plan(path: Path) -> Plan | None:
    """What `write_plan` kept; None where there is no such file."""
    if not path.is_file():
        return None
    plan = json.loads(path.read_text("utf-8"))
    volumes: list[dict[str, Any]] = [
        {name: tuple(v) if isinstance(v, list) else v for name, v in fields.items()}
        for fields in plan["volumes"]
    ]
    return Plan(plan["release"], tuple(plan["coders"]), tuple(Checked(**v) for v in volumes))
