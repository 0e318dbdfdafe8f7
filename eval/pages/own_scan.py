"""Live parts of the page on your own scans: an export with known faults, and what they do.

The export is a synthetic head: turned, brightened by a known field, and written as DICOM slices.
What takes seconds on a block is measured on the middle one.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from eval.evaluate.measure import measured, plan_of
from eval.generation.page import synthetic_head
from eval.metrics.errors import peak_intensity, psnr
from eval.rows_file import read_rows
from medil.errors import needs
from medil.grid import Grid, centres_mm
from medil.model.autoencoder import MedIL
from medil.synth.box import box_grid
from medil.volume import Volume, save

TURN_DEG, AXIS = 11.0, (1.0, 0.4, -0.3)
FIELD = 0.35  # of the logarithm of the field, from the middle of the box to its left or right end
SPACING_MM = (1.25, 1.25, 2.5)
SLAB_MM, CUBE_MM = (1e3, 1e3, 60.0), (64.0, 64.0, 64.0)
STEP = 1e-3  # of stored integers, on the 0 ... 1 scale


class Export(NamedTuple):
    """A head as it lay in the scanner, before and after it was turned and brightened."""

    straight: Volume
    scan: Volume
    field: Tensor  # [D, H, W]


def export(folder: Path) -> Export:
    """Write a synthetic head as a DICOM series, one file a slice, and say what was done to it.

    Raises:
        InputError: pydicom is not installed.
    """
    straight = synthetic_head(0, box_grid(2.0).with_spacing(SPACING_MM))
    place = centres_mm(straight.grid)[..., 0] / (straight.grid.extent_mm[0] / 2)
    field = (FIELD * place).exp().float()
    turned = straight.grid.rotated(AXIS, TURN_DEG)
    data = (straight.data * field / STEP).round().clamp(0, 2**15 - 1)
    scan = Volume(data, turned)
    write_series(scan, folder)
    return Export(straight, scan, field)


def write_series(volume: Volume, folder: Path) -> None:
    """Write whole numbers [D, H, W] as MR slices across the last axis, without any person."""
    with needs("dicom", "writing DICOM needs pydicom"):
        from pydicom import dcmwrite
        from pydicom.dataset import Dataset, FileMetaDataset
        from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid
    folder.mkdir(parents=True, exist_ok=True)
    in_lps = np.diag([-1.0, -1.0, 1.0])
    columns, rows, _ = (in_lps @ volume.grid.directions).T
    series = generate_uid()
    for k in range(volume.grid.shape[2]):
        one = Dataset()
        one.SOPClassUID, one.SOPInstanceUID = MRImageStorage, generate_uid()
        one.SeriesInstanceUID, one.StudyInstanceUID = series, generate_uid()
        one.SeriesNumber, one.InstanceNumber, one.Modality = 3, k + 1, "MR"
        one.ImageType = ["ORIGINAL", "PRIMARY", "M"]
        pixels = volume.data[:, :, k].T.contiguous().numpy().astype(np.uint16)  # [rows, columns]
        one.Rows, one.Columns = pixels.shape
        one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
        one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = 16, 16, 15, 0
        corner_mm = in_lps @ volume.grid.index_to_ras((0, 0, k))
        one.ImagePositionPatient = [round(float(mm), 6) for mm in corner_mm]
        one.ImageOrientationPatient = [round(float(n), 8) for n in (*columns, *rows)]
        across_mm, down_mm, thick_mm = volume.grid.spacing_mm
        one.PixelSpacing, one.SliceThickness = [down_mm, across_mm], thick_mm
        one.PixelData = pixels.tobytes()
        one.file_meta = FileMetaDataset()
        one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        one.file_meta.MediaStorageSOPClassUID = one.SOPClassUID
        one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID
        dcmwrite(folder / f"IM{k:04d}.dcm", one, enforce_file_format=True)


def middle(volume: Volume, size_mm: tuple[float, float, float]) -> Volume:
    """The middle of a volume, at most `size_mm` along its axes, on its own voxels."""
    wanted = np.rint(np.divide(size_mm, volume.grid.spacing_mm)).astype(int)
    shape = np.minimum(wanted, volume.grid.shape)
    start = (np.array(volume.grid.shape) - shape) // 2
    a, b, c = (slice(first, first + n) for first, n in zip(start, shape, strict=True))
    return Volume(volume.data[a, b, c], volume.grid.crop(start, shape))


# What a missed step does


def with_scalp(brain: Volume, mask: Tensor) -> Volume:
    """A brain inside a bright rim, 6 to 14 mm away, as fat under the skin is in T1w heads."""
    from scipy import ndimage

    away_mm = ndimage.distance_transform_edt(~mask.numpy(), brain.grid.spacing_mm)
    rim = torch.from_numpy((away_mm > 6) & (away_mm < 14))
    bright = 2.0 * float(torch.quantile(brain.data[mask].float(), 0.99))
    return Volume(torch.where(rim, bright, brain.data.float()), brain.grid)


def with_wrong_slices(brain: Volume) -> Volume:
    """The same voxels under a header that says half their thickness."""
    across, down, thick = brain.grid.spacing_mm
    affine = brain.grid.affine_vox2ras @ np.diag([1.0, 1.0, 0.5, 1.0])
    assert np.allclose(Grid(brain.grid.shape, affine).spacing_mm, (across, down, thick / 2))
    return Volume(brain.data, Grid(brain.grid.shape, affine))


def missed_steps(
    model: MedIL, brain: Volume, mask: Tensor, others: Mapping[str, Volume]
) -> pd.DataFrame:
    """One line a scan: latent cells, and how well the brain comes back from them (PSNR).

    Args:
        model: The autoencoder.
        brain: The prepared brain.
        mask: [D, H, W] bool.
        others: The same voxels with one step missed, by name.
    """
    lines = []
    for name, scan in {"as prepared": brain, **others}.items():
        latent = model.encode(scan)
        back = model.decode(latent, scan.grid)
        truth, inside = scan.data.float().numpy(), mask.numpy()
        value_db = psnr(truth, back.data.numpy(), inside, peak_intensity(truth, inside))
        cells = " × ".join(map(str, latent.grid.shape))
        lines.append({"Scan": name, "Latent cells": cells, "PSNR in the brain (dB)": value_db})
    return pd.DataFrame(lines).assign(n=1)


# A score


def scored(scan: Volume, release: str, folder: Path) -> pd.DataFrame:
    """The rows of `medil evaluate` for one scan, measured in this process.

    Args:
        scan: On its own grid; it is written to `folder`.
        release: Which weights.
        folder: An empty folder.
    """
    image = save(scan, folder / "middle.nii.gz", force=True)
    plan = plan_of([image], release)
    path = folder / "rows.jsonl"
    measured(plan, path, "quick", workers=0)
    return read_rows(path)
