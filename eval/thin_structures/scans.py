"""Real CT: the scans of the `ct` manifest, and errors in the windows that radiologists look in."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from scipy import ndimage

from eval.rows import digest
from medil.data.manifest import fetch, local_entries
from medil.data.schema import Entry
from medil.errors import InputError
from medil.io.windows import ct_window
from medil.volume import Volume, load

DATA = "ct"
LEAST_SLICES = 8  # a volume; what has fewer is a picture
MOST_MM3 = 8.0  # of a voxel; latents keep a number for as much, and do not compress larger ones
BODY_HU = -500.0
SHOWN = ("lung", "mediastinum")  # windows
METRICS = {"mae_hu": "HU", "psnr": "dB"}
DEFINITION = [1, BODY_HU, SHOWN]


def scans() -> list[Entry]:
    """The chest scans on this computer that latents compress; none of them is trained on."""
    return [entry for entry in local_entries(DATA, "test") if _is_compressed(entry)]


def _is_compressed(entry: Entry) -> bool:
    if entry.kind == "mask" or entry.shape is None or entry.spacing_mm is None:
        return False
    return min(entry.shape) >= LEAST_SLICES and math.prod(entry.spacing_mm) < MOST_MM3


def load_scan(entry: Entry) -> Volume:
    """A scan in HU."""
    return load(fetch(entry))


def data_sha256(entry: Entry) -> str:
    """Of the file, and of how it is scored."""
    return digest([entry.sha256, DEFINITION])


def body(data: np.ndarray) -> np.ndarray:
    """[D, H, W] bool: the largest piece denser than air, its holes filled slice by slice.

    Lungs are holes of an axial slice. A crop without skin around it is filled as far as its own
    tissue closes.

    Raises:
        InputError: Nothing is denser than air.
    """
    dense = ndimage.binary_opening(data > BODY_HU)
    pieces, count = ndimage.label(dense)
    if not count:
        raise InputError("no voxel of this scan is denser than air; CT in HU is expected.")
    largest = pieces == 1 + int(np.argmax(np.bincount(pieces.ravel())[1:]))
    planes = [ndimage.binary_fill_holes(largest[:, :, k]) for k in range(data.shape[2])]
    return np.stack(planes, axis=2)


def window_errors(
    truth: np.ndarray, estimate: np.ndarray, mask: np.ndarray, window: str
) -> Mapping[str, float]:
    """MAE in HU and PSNR of what a window shows: both volumes clipped to it, its width as peak."""
    low, high = ct_window(window)
    error = (estimate.clip(low, high) - truth.clip(low, high))[mask]
    mse = float(np.mean(error**2))
    psnr = 10 * np.log10((high - low) ** 2 / mse) if mse else float("inf")
    return {"mae_hu": float(np.mean(np.abs(error))), "psnr": float(psnr)}
