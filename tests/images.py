"""What several tests share: files with full headers, a ramp in mm, what a refusal is."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from contextlib import contextmanager

import nibabel as nib
import numpy as np
import torch

from medil.grid import Grid, centres_mm
from medil.volume import Volume

DIED = 9  # exit code of a process that was to die
MARK = (5, 1, 6)  # a voxel, in the order of the file
SLOPE = torch.tensor([1.0, -0.5, 0.25], dtype=torch.float64)  # units per mm along R, A, S


def write_nifti(path, data, affine, q_code=2, s_code=1, units=("mm", "sec"), kind=nib.Nifti1Image):
    """A NIfTI file with everything in its header set; affine in the header's own unit."""
    image = kind(data, affine, dtype=data.dtype)
    image.set_qform(affine, q_code)
    image.set_sform(affine, s_code)
    image.header.set_xyzt_units(*units)
    nib.save(image, path)
    return path


def marked(shape, dtype=np.int16) -> np.ndarray:
    data = np.zeros(shape, dtype)
    data[MARK] = 100
    return data


def ramp(grid: Grid) -> torch.Tensor:
    """200 and a slope in mm: [D, H, W] float32."""
    return (centres_mm(grid) @ SLOPE + 200).float()


def inner(grid: Grid, margin_mm: float, box: Grid) -> torch.Tensor:
    """Voxels whose centre lies deeper in a box than a margin: [D, H, W] bool."""
    index = box.ras_to_index(centres_mm(grid).numpy())
    depth = np.minimum(index + 0.5, np.array(box.shape) - 0.5 - index) * box.spacing_mm
    return torch.from_numpy((depth > margin_mm).all(-1))


def refused(result: tuple[int, str, str], words: str) -> None:
    """Exit code 2 and one sentence on stderr that holds these words."""
    code, out, err = result
    assert code == 2
    assert out == ""
    assert err.startswith("medil: ") and err.count("\n") == 1 and err.endswith("\n")
    assert "Traceback" not in err
    assert words in err


@contextmanager
def full_disk(most_bytes: int = 0):
    """Within the block no file can be written beyond a size: the system refuses, as a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def killed_at_the_first_rename(work: Callable[[], object]) -> None:
    """Do some work in another process, which dies where a file would get its final name."""
    if child := os.fork():
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == DIED
        return
    os.replace = os.rename = lambda *_: os._exit(DIED)
    try:
        work()
    finally:
        os._exit(0)


LABELS_SHAPE, LABELS_ORIGIN_MM = (62, 70, 58), np.array([-33.0, -31.0, -25.0])


def toy_labels(ventricle_mm: np.ndarray, radius_mm: float) -> np.ndarray:
    """Nested ellipsoids of CSF, cortex and white matter, a ventricle, FreeSurfer numbers, RAS+."""
    points_mm = np.indices(LABELS_SHAPE).transpose(1, 2, 3, 0) + LABELS_ORIGIN_MM
    labels = np.zeros(LABELS_SHAPE, np.int16)
    for label, outer_mm in ((24, 20.5), (3, 19.0), (2, 15.0)):
        labels[np.linalg.norm(points_mm / [1, 1.15, 0.9], axis=-1) < outer_mm] = label
    labels[np.linalg.norm(points_mm - ventricle_mm, axis=-1) < radius_mm] = 4
    labels[-4:-2] = 514  # a piece of skull
    return labels


def head(shape=(24, 26, 28), spacing_mm=(1.0, 1.0, 1.0), seed=0) -> Volume:
    """A noisy ball in noise: a raw scan."""
    grid = Grid.from_spacing(shape, spacing_mm)
    noise = np.random.default_rng(seed).normal(0, 5, shape)
    return Volume(torch.from_numpy(np.abs(noise + 400 * ball(grid))).float(), grid)


def ball(grid: Grid, share=0.35) -> np.ndarray:
    """[D, H, W] bool: an ellipsoid of a share of the box in each direction."""
    axes = [(np.arange(n) - (n - 1) / 2) / (share * n) for n in grid.shape]
    return sum(a**2 for a in np.meshgrid(*axes, indexing="ij")) < 1
