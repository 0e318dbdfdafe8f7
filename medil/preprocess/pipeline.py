"""Prepare many raw heads, each on its own grid, into a folder laid out as a BIDS derivative.

A scan that was prepared with the same steps is not prepared again. Every output has a sidecar
that says what was done and with which versions; nothing of a header but the grid is written.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from medil import __version__
from medil.errors import InputError
from medil.io.intensity import robust_intensity
from medil.io.listing import Listed
from medil.io.nifti import place_of
from medil.io.source import has_suffix, suffix_of
from medil.preprocess.alignment import alignment, moved, rotation_deg
from medil.preprocess.bias_field import bias_field, field_range
from medil.preprocess.brain_mask import DEEPBET, brain_mask, volume_ml
from medil.preprocess.quality import Done, draw, flags, write_page
from medil.system.files import atomic_output, file_sha256, make_folder
from medil.system.workers import results
from medil.volume import Volume, load, save

VERSION = 1  # raise it when other voxels or another affine come out
PACKAGES = ("SimpleITK", "deepbet", "nilearn")
PICTURES, PAGE = "figures", "quality.html"


@dataclass(frozen=True)
class Steps:
    """What is done to a scan.

    Args:
        strip: How the brain is found, see `brain_mask`.
        bias: Divide by the bias field.
        align: Turn the head upright by its affine.
    """

    strip: str = DEEPBET
    bias: bool = True
    align: bool = True


class Prepared(NamedTuple):
    """A prepared scan, the mask of its brain, and numbers that describe both."""

    volume: Volume
    mask: Tensor  # [D, H, W] bool
    facts: dict[str, Any]


def prepare(scan: Volume, steps: Steps) -> Prepared:
    """Strip a raw T1w head, correct its bias field and turn it upright by its affine.

    Args:
        scan: The head on its own grid.
        steps: What to do.

    Returns:
        The brain, 0 outside, on the same voxels: as stored where the bias field is left alone,
        float32 otherwise.

    Raises:
        InputError: As `brain_mask`, `bias_field` and `alignment`.
    """
    mask, data = brain_mask(scan, steps.strip), scan.data
    facts: dict[str, Any] = {"brain_ml": volume_ml(mask, scan)}
    if steps.bias:
        field = bias_field(scan, mask)
        facts["bias_field_range"] = field_range(field, mask)
        data = data.float() / field
    data = torch.where(mask, data, torch.zeros((), dtype=data.dtype))
    volume = scan.with_data(data)
    if steps.align:
        rigid = alignment(volume, mask)
        facts |= {"rigid_ras_mm": rigid.tolist(), "rotation_deg": rotation_deg(rigid)}
        volume = moved(volume, rigid)
    intensity = robust_intensity(data)
    facts["intensity"] = [intensity.low, intensity.high]
    return Prepared(volume, mask, facts)


# Files


def preprocess(scans: Sequence[Listed], out: Path, steps: Steps, processes: int = 1) -> list[Done]:
    """Prepare scans into a folder, some at a time, and write a page on their quality.

    Args:
        scans: Files, each with the name of its subject where that is known.
        out: The folder, made if missing.
        steps: What to do; scans of it that were prepared so are kept.
        processes: Number of scans at a time.

    Returns:
        One for each scan, in order. A scan that fails leaves no file.

    Raises:
        InputError: Two scans of one name, or a folder that holds something else.
    """
    names = [output_name(scan) for scan in scans]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"two scans would both become {name}; name their subjects in a table.")
    _claim(out)
    tasks = [(scan, name, out, steps) for scan, name in zip(scans, names, strict=True)]
    by_name = {done.name: done for done in results(_one, tasks, processes, "scans")}
    every = [by_name[name] for name in names]
    write_page(out / PAGE, every)
    return every


def output_name(scan: Listed) -> str:
    """The name of a scan's outputs, with entities as BIDS writes them, such as ``sub-01_run-2``.

    Example:
        >>> output_name(Listed(Path("raw/sub-01_ses-02_T1w.nii.gz")))
        'sub-01_ses-02'
        >>> output_name(Listed(Path("raw/head 7 (T1).nii.gz")))
        'sub-head7T1'
        >>> output_name(Listed(Path("raw"), "dicom-1f3a9c2e_series-4", "dicom-1f3a9c2e"))
        'sub-dicom1f3a9c2e_acq-series4'
    """
    stem = scan.name or scan.path.name
    if has_suffix(stem):
        stem = stem[: -len(suffix_of(stem))]
    entities = re.findall(r"(?:^|_)([a-z]+-[A-Za-z0-9]+)(?=_|$)", stem)
    if entities and entities[0].startswith("sub-"):
        return "_".join(entities)
    which = stem.removeprefix(f"{scan.subject}_") if scan.subject else stem
    label, acquisition = (re.sub("[^A-Za-z0-9]", "", text) for text in (scan.subject, which))
    if not (label or acquisition):
        raise InputError(f"{scan.path} has no letter or digit in its name; name its subject.")
    if label and which != stem and acquisition:  # one of several scans of a subject
        return f"sub-{label}_acq-{acquisition}"
    return f"sub-{label or acquisition}"


def place(out: Path, name: str) -> Path:
    """The folder of a scan's outputs."""
    parts = [part for part in name.split("_") if part.startswith(("sub-", "ses-"))]
    return out.joinpath(*parts, "anat")


def _one(scan: Listed, name: str, out: Path, steps: Steps) -> Done:
    """Prepare one scan, unless that was done."""
    folder = place(out, name)
    image, mask_file = (folder / f"{name}_{end}.nii.gz" for end in (
        "desc-preproc_T1w", "desc-brain_mask"
    ))  # fmt: skip
    sidecar, picture = image.with_name(f"{name}_desc-preproc_T1w.json"), _picture(out, name)
    try:
        about = _about(scan, steps)
        if (kept := _kept(sidecar, about)) and image.exists() and mask_file.exists():
            return Done(name, kept)
        raw = load(scan.path, series=scan.series)
        made = prepare(raw, steps)
        folder.mkdir(parents=True, exist_ok=True)
        source = made.volume.source and place_of(made.volume.source)
        save(made.volume, image, force=True)
        save(Volume(made.mask, made.volume.grid, source), mask_file, force=True)
        facts = about | made.facts | {"flags": flags(made.facts, made.mask, raw)}
        draw(picture, raw, made.volume, made.mask)
        with atomic_output(sidecar, force=True) as temporary:
            temporary.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    except InputError as error:
        return Done(name, {}, str(error))
    return Done(name, facts)


def _picture(out: Path, name: str) -> Path:
    return out / PICTURES / f"{name}.png"


def _about(scan: Listed, steps: Steps) -> dict[str, Any]:
    """What a sidecar says before anything is computed; two that agree describe one result."""
    return {
        "Description": "Brain of a T1w head on the scan's own voxels",
        "SkullStripped": True,
        "Sources": [scan.path.name],
        "GeneratedBy": [{"Name": "medil", "Version": __version__}],
        "sha256_of_source": _sha256(scan.files or (scan.path,)),
        "steps": asdict(steps),
        "version": VERSION,
        "packages": {name: _package(name) for name in PACKAGES},
    }


def _package(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _sha256(files: Sequence[Path]) -> str:
    """The digest of a file; of several the digest of theirs, in the order of their names."""
    digests = [file_sha256(path) for path in sorted(files)]
    return (
        digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
    )


def _kept(sidecar: Path, about: dict[str, Any]) -> dict[str, Any] | None:
    """The content of a sidecar that says the same; None where there is none."""
    try:
        known = json.loads(sidecar.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return known if all(known.get(name) == value for name, value in about.items()) else None


def _claim(out: Path) -> None:
    """Make a folder a derivative of ours, or check that it is one.

    Raises:
        InputError: It holds something else.
    """
    make_folder(out)
    about = out / "dataset_description.json"
    if about.exists():
        try:
            makers = json.loads(about.read_text(encoding="utf-8"))["GeneratedBy"]
            if any(maker["Name"] == "medil preprocess" for maker in makers):
                return
        except (ValueError, KeyError, TypeError):
            pass
        raise InputError(f"{out} holds another data set; name a folder of its own.")
    if any(not path.name.startswith(".") for path in out.iterdir()):
        raise InputError(f"{out} is not empty and holds no prepared scans; name another folder.")
    described = {
        "Name": "Prepared scans", "BIDSVersion": "1.9.0", "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "medil preprocess", "Version": __version__}],
    }  # fmt: skip
    with atomic_output(about) as temporary:
        temporary.write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
