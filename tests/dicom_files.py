"""DICOM files for tests, made with pydicom; each names a person who must not be found again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

SECRETS = (
    "Quisling", "QUISLING", "Zebedee", "19470229", "HOSP-8675309", "ACC-5551212", "Drfeelgood",
    "Frobozz", "Xyzzy", "Plugh",
)  # fmt: skip
AXIAL = (1, 0, 0, 0, 1, 0)


def dataset(series: str = "1.2.3", number: int = 4, modality: str = "CT"):
    """A dataset with a file meta, of a person, without an image."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    made = Dataset()
    made.PatientName = "Quisling^Zebedee^QUISLING"
    made.PatientID = made.OtherPatientIDs = "HOSP-8675309"
    made.PatientBirthDate = "19470229"
    made.AccessionNumber = "ACC-5551212"
    made.ReferringPhysicianName = made.OperatorsName = "Drfeelgood"
    made.InstitutionName = "Frobozz"
    made.StudyDescription = made.SeriesDescription = "Xyzzy \x1b[31m"
    made.ImageComments = made.PatientComments = "Plugh"
    made.SOPClassUID, made.SOPInstanceUID = CTImageStorage, generate_uid()
    made.SeriesInstanceUID, made.SeriesNumber, made.Modality = series, number, modality
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    return made


def slice_of(pixels: np.ndarray, position_mm: Sequence[float], **fields):
    """A dataset of one CT slice [rows, columns] at a position in LPS mm; `fields` replace its own.

    A field that is None is left out.
    """
    known = {name: fields.pop(name) for name in ("series", "number", "modality") if name in fields}
    made = dataset(**known)
    made.Rows, made.Columns = pixels.shape[-2:]
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.BitsAllocated = made.BitsStored = 8 * pixels.dtype.itemsize
    made.HighBit = made.BitsStored - 1
    made.PixelRepresentation = int(pixels.dtype.kind == "i")
    made.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    made.ImageOrientationPatient, made.ImagePositionPatient = list(AXIAL), list(position_mm)
    made.PixelSpacing, made.SliceThickness = [1.5, 1.0], 3.0
    made.PixelData = pixels.tobytes()
    for name, value in fields.items():
        if value is None:
            delattr(made, name)
        else:
            setattr(made, name, value)
    return made


def write(path: Path, made, preamble: bool = True) -> Path:
    """Write a dataset; without a preamble also without file meta information."""
    from pydicom import dcmwrite

    path.parent.mkdir(parents=True, exist_ok=True)
    if preamble:
        dcmwrite(path, made, enforce_file_format=True)
    else:
        del made.file_meta
        made.save_as(path, implicit_vr=True, little_endian=True)
    return path


def values(n_slices: int = 5, shape: tuple[int, int] = (7, 8)) -> np.ndarray:
    """[slices, rows, columns] uint16, all different."""
    count = n_slices * shape[0] * shape[1]
    return np.arange(count, dtype=np.uint16).reshape(n_slices, *shape) + 1000


def write_series(
    folder: Path, heights_mm: Sequence[float] = (0, 3, 6, 9, 12), **fields
) -> list[Path]:
    """Axial slices at heights, in files whose names and instance numbers are in another order."""
    pixels = values(len(heights_mm))
    paths = []
    for k, height_mm in enumerate(heights_mm):
        name = f"IM{(7 * k + 3) % 100:02d}"
        made = slice_of(pixels[k], (-10.0, 5.0, 20.0 + height_mm), **fields)
        made.InstanceNumber = len(heights_mm) - k
        paths.append(write(folder / name, made))
    return paths
