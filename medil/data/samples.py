"""One real scan and the published label maps, or stand-ins where these are missing."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import torch

from medil.data.manifest import entries, fetch, local_entries, reachable
from medil.data.schema import Entry
from medil.errors import InputError
from medil.grid import Grid, centres_mm
from medil.regrid import sample_trilinear
from medil.synth.anatomy import Anatomy, label_anatomy, mni152_datasets, tissue_anatomy
from medil.volume import Volume, load

LABEL_MAPS = "synthseg_labels"
SCAN = "open_ms_t1/longitudinal_patient01_study1_T1W.nii.gz"


def real_scan() -> tuple[Volume, str]:
    """A raw T1-weighted head as a scanner wrote it, held out of all training.

    It comes from the mirror, the cache or its published address. Otherwise `thick_slices` of the
    MNI152 average takes its place, and the sentence that is returned with the volume says so.

    Raises:
        InputError: A local copy does not hold the published bytes, there are no manifests
            (an installed wheel), or the stand-in is needed and nilearn is missing.

    Example:
        >>> scan, origin = real_scan()  # doctest: +SKIP
        >>> [round(size_mm, 2) for size_mm in scan.grid.spacing_mm]  # doctest: +SKIP
        [0.72, 0.72, 3.0]
    """
    entry = next(e for e in entries("open_ms_t1") if e.path == SCAN)
    if reachable(entry):
        return load(fetch(entry)), _description(entry)
    return thick_slices(mni152_template()), (
        "The real scan is not on this computer and could not be downloaded, so the MNI152 "
        "template takes its place, averaged to tilted slices of 3 mm: it is an average of many "
        "heads, smoother than any scan."
    )


def _description(entry: Entry) -> str:
    return (
        f"A raw T1-weighted scan of a person whom training never sees: {Path(entry.path).name} "
        f"of {entry.dataset} ({entry.licence})."
    )


def mni152_template() -> Volume:
    """The MNI152 T1-weighted average at 1 mm, skull-stripped: it comes with nilearn, no download.

    Raises:
        InputError: nilearn is not installed.
    """
    image = mni152_datasets().load_mni152_template(resolution=1)
    data = torch.from_numpy(image.get_fdata(dtype=np.float32).copy())
    return Volume(data, Grid(tuple(data.shape), image.affine))  # type: ignore[arg-type]


def thick_slices(
    volume: Volume, spacing_mm: Sequence[float] = (0.9, 0.9, 3.0), tilt_deg: float = 8.0
) -> Volume:
    """A volume as a clinical scan would hold it: thin pixels, thick tilted slices, stored LPS.

    Each slice is the mean of three thinner ones, interpolated trilinearly.
    """
    tilted = volume.grid.rotated((1.0, 0.3, 0.0), tilt_deg).covering(spacing_mm)
    depth, height, width = tilted.shape
    points_mm = centres_mm(tilted.resized((depth, height, 3 * width)))
    thin = sample_trilinear(volume.data[None, None], volume.grid, points_mm)[0, 0]
    data = thin.reshape(depth, height, width, 3).mean(-1).float()  # [D, H, W]
    in_file, turn = tilted.reoriented("LPS")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "thick.nii.gz"
        turned = nib.orientations.apply_orientation(data.numpy(), turn)
        nib.save(nib.Nifti1Image(turned, in_file.affine_vox2ras), path)
        return load(path)


def label_maps(split: str) -> list[Entry | None]:
    """The published label maps of a split that are on this computer.

    Without any, the list holds one None, which stands for the tissue maps of MNI152.
    """
    return [*local_entries(LABEL_MAPS, split)] or [None]


def label_map_paths(split: str) -> list[Path]:
    """The files of the published label maps of a split.

    Raises:
        InputError: There are no label maps here.
    """
    maps = [fetch(entry) for entry in local_entries(LABEL_MAPS, split)]
    if not maps:
        raise InputError(
            "heads are drawn on label maps, and none is on this computer; "
            "set MEDIL_DATA_MIRROR to a folder that holds them, or fetch them first."
        )
    return maps


def anatomy_of(label_map: Entry | None) -> Anatomy:
    """The anatomy of one of `label_maps`."""
    return label_anatomy(fetch(label_map)) if label_map else tissue_anatomy()


def map_sha256(label_map: Entry | None) -> str:
    """The SHA-256 of one of `label_maps`, for the recipes of heads that are drawn on it."""
    return label_map.sha256 if label_map else "mni152"
