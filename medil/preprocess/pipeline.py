"""Prepare many raw heads, each on its own grid, into a folder laid out as a BIDS derivative.

A scan that was prepared with the same steps is not prepared again. Every output has a sidecar
that says what was done and with which versions; nothing of a header but the grid is written.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from medil import __version__
from medil.checksums import parsed, summed, without_sum
from medil.errors import InputError, WriteError, of_system
from medil.formats import FIELD, PREPARED, NewerError
from medil.io.intensity import robust_intensity
from medil.io.listing import Listed
from medil.io.nifti import place_of
from medil.io.source import has_suffix, suffix_of
from medil.preprocess.alignment import alignment, moved, rotation_deg
from medil.preprocess.bias_field import bias_field, field_range
from medil.preprocess.brain_mask import DEEPBET, brain_mask, volume_ml
from medil.preprocess.quality import PICTURES, Done, draw, flags, write_page
from medil.system.cluster import WorkerDied
from medil.system.files import atomic_output, file_sha256, make_folder, sweep
from medil.system.lock import only_writer
from medil.system.workers import results
from medil.volume import Volume, load, save

SHA256 = "sha256_of_source"
VERSION = 1  # raise it when other voxels or another affine come out
PACKAGES = ("SimpleITK", "deepbet", "nilearn")
PAGE = "quality.html"
DESCRIPTION = "dataset_description.json"


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


def preprocess(
    scans: Sequence[Listed],
    out: Path,
    steps: Steps,
    processes: int = 1,
    scheduler: str | None = None,
    pictures: bool = True,
) -> list[Done]:
    """Prepare scans into a folder, some at a time, and write a page on their quality.

    Args:
        scans: Files, each with the name of its subject where that is known.
        out: The folder, made if missing.
        steps: What to do; scans of it that were prepared so are kept.
        processes: Number of scans at a time.
        scheduler: Address of a Dask scheduler whose workers prepare the scans instead. They need
            the same packages, and the same disk under the same paths.
        pictures: Draw every scan for the page.

    Returns:
        One for each scan, in order. A scan that fails leaves no file; nor does one whose workers
        died.

    Raises:
        InputError: Two scans of one name, a folder that holds something else, or as
            `medil.system.workers.results`. What was finished is kept.
    """
    names = [output_name(scan) for scan in scans]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise InputError(f"two scans would both become {twice[0]}; name their subjects in a table.")
    with only_writer(make_folder(out), "medil preprocess"):
        return _prepared(scans, names, out, steps, processes, scheduler, pictures)


def _prepared(
    scans: Sequence[Listed],
    names: Sequence[str],
    out: Path,
    steps: Steps,
    processes: int,
    scheduler: str | None,
    pictures: bool,
) -> list[Done]:
    """As `preprocess`, in a folder that no other process writes to."""
    _claim(out)
    if scheduler is not None:  # workers have another working folder
        scans, out = [_absolute(scan) for scan in scans], out.absolute()
    tasks = [(name, scan, out, steps, pictures) for scan, name in zip(scans, names, strict=True)]
    made = dict(results(_one, tasks, processes, "scans", scheduler, _died))
    if scheduler is not None:  # workers that were killed
        for folder in {out / PICTURES, *(place(out, name) for name in names)}:
            sweep(folder)
    every = [made[number] for number in range(len(tasks))]
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


def _absolute(scan: Listed) -> Listed:
    return scan._replace(
        path=scan.path.absolute(), files=tuple(path.absolute() for path in scan.files)
    )


def _died(name: str, error: WorkerDied) -> Done:
    return Done(name, {}, str(error))


def _one(name: str, scan: Listed, out: Path, steps: Steps, pictures: bool) -> Done:
    """Prepare one scan, unless that was done.

    Raises:
        InputError: The folder is on another machine's disk.
        WriteError: The disk refused a write.
    """
    if not (out / DESCRIPTION).exists():
        raise InputError(f"{out} is not there for a worker; all machines need the same disk.")
    folder = place(out, name)
    image, mask_file = (folder / f"{name}_{end}.nii.gz" for end in (
        "desc-preproc_T1w", "desc-brain_mask"
    ))  # fmt: skip
    sidecar, picture = image.with_name(f"{name}_desc-preproc_T1w.json"), _picture(out, name)
    needed = [image, mask_file, *([picture] if pictures else [])]
    try:
        kept = _kept(sidecar, scan, steps)
        if kept and all(path.exists() for path in needed):
            return Done(name, kept)
        about = _about(scan, steps)
        raw = load(scan.path, series=scan.series)
        made = prepare(raw, steps)
        make_folder(folder)
        source = made.volume.source and place_of(made.volume.source)
        save(made.volume, image, force=True)
        save(Volume(made.mask, made.volume.grid, source), mask_file, force=True)
        facts = about | made.facts | {"flags": flags(made.facts, made.mask, raw)}
        if pictures:
            draw(picture, raw, made.volume, made.mask)
        with atomic_output(sidecar, force=True) as temporary:
            temporary.write_text(json.dumps(summed(facts), indent=2) + "\n", encoding="utf-8")
    except WriteError:  # it would refuse the next scan's, too
        raise
    except InputError as error:
        return Done(name, {}, str(error))
    except OSError as error:
        return Done(name, {}, of_system(error))
    return Done(name, facts)


def _picture(out: Path, name: str) -> Path:
    return out / PICTURES / f"{name}.png"


def _about(scan: Listed, steps: Steps) -> dict[str, Any]:
    """What a sidecar says before anything is computed."""
    return _recipe(scan, steps) | {"state_of_source": _state(scan), SHA256: _sha256(scan)}


def _recipe(scan: Listed, steps: Steps) -> dict[str, Any]:
    """How a scan is prepared; two sidecars that agree in it and the bytes describe one result."""
    return {
        "Description": "Brain of a T1w head on the scan's own voxels",
        "SkullStripped": True,
        "Sources": [scan.path.name],
        "GeneratedBy": [{"Name": "medil", "Version": __version__}],
        "steps": asdict(steps),
        "version": VERSION,
        "packages": {name: _package(name) for name in PACKAGES},
    }


@lru_cache
def _package(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _files(scan: Listed) -> Sequence[Path]:
    return sorted(scan.files or (scan.path,))


def _state(scan: Listed) -> str:
    """A digest of the sizes and times of a scan's files: the same one, the same bytes.

    A digest, because the time of a file can be that of the scan.
    """
    stats = [path.stat() for path in _files(scan)]
    text = " ".join(f"{stat.st_size} {stat.st_mtime_ns}" for stat in stats)
    return hashlib.sha256(text.encode()).hexdigest()


def _sha256(scan: Listed) -> str:
    """The digest of a file; of several the digest of theirs, in the order of their names."""
    digests = [file_sha256(path) for path in _files(scan)]
    return (
        digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
    )


def _kept(sidecar: Path, scan: Listed, steps: Steps) -> dict[str, Any] | None:
    """The content of a whole sidecar of the same scan and steps; None where there is none.

    Bytes are read only of a file whose size or time changed.
    """
    try:
        known = without_sum(parsed(sidecar.read_text(encoding="utf-8")))
    except (OSError, ValueError, AttributeError):
        return None
    recipe = _recipe(scan, steps)
    if any(known.get(n) != value for n, value in recipe.items()):
        return None
    same = known.get("state_of_source") == _state(scan) or known.get(SHA256) == _sha256(scan)
    return known if same else None


def _claim(out: Path) -> None:
    """Make a folder a derivative of ours, or check that it is one.

    Raises:
        InputError: It holds something else.
    """
    make_folder(out)
    about = out / DESCRIPTION
    if about.exists():
        try:
            described = parsed(about.read_text(encoding="utf-8"))
            PREPARED.reads(described.get(FIELD), about)
            makers = described["GeneratedBy"]
            if any(maker["Name"] == "medil preprocess" for maker in makers):
                return
        except NewerError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError):
            pass
        raise InputError(f"{out} holds another data set; name a folder of its own.")
    if any(not path.name.startswith(".") for path in out.iterdir()):
        raise InputError(f"{out} is not empty and holds no prepared scans; name another folder.")
    described = {
        FIELD: str(PREPARED), "Name": "Prepared scans",
        "BIDSVersion": "1.9.0", "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "medil preprocess", "Version": __version__}],
    }  # fmt: skip
    with atomic_output(about) as temporary:
        temporary.write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
