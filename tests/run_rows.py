"""Score a toy head on so many threads, drawn into a folder or found there, and record the rows.

python -m tests.run_rows FOLDER THREADS cold warm
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

from eval import rows, rows_file
from eval.coders.base import all_coders
from eval.reconstruction import measure
from eval.subjects import Scan, Subject
from medil.data import perceptual
from medil.diffusion import latents
from medil.errors import InputError
from medil.volume import Volume
from tests.images import LABELS_ORIGIN_MM, toy_labels, write_nifti

ARMS = ("medil", "dct_ball")
CONDITIONS = ("native -> native",)


def refuse(*_) -> None:
    """LPIPS's trunk comes from the mirror, or there is no LPIPS."""
    raise InputError("tests download nothing.")


def head(folder: Path) -> Scan:
    """A toy head at 2 mm, of the file that `draw_heads` keeps."""
    affine = np.eye(4)
    affine[:3, 3] = LABELS_ORIGIN_MM
    labels = write_nifti(folder / "toy.nii.gz", toy_labels(np.array([4.0, 2, 1]), 7.0), affine)
    latents.label_map_paths = lambda split: [labels]
    (path,) = latents.draw_heads("test", [0], folder / "heads", spacing_mm=2.0)
    drawn = latents.read_head(path)
    inside = np.argwhere(drawn.data.numpy() > 0)
    start, stop = inside.min(0), inside.max(0) + 1
    i, j, k = (slice(a, b) for a, b in zip(start, stop, strict=True))
    data = drawn.data[i, j, k]
    return Scan(Volume(data, drawn.grid.crop(start, stop - start)), data.numpy() > 0)


def record(folder: Path, out: Path) -> None:
    """Draw or find the head, score it, and record the rows."""
    scan = head(folder)
    sha256 = rows.array_digest(scan.volume.data.numpy(), scan.volume.grid.affine_vox2ras)
    subject = Subject("toy head", sha256, CONDITIONS, lambda: scan)
    todo = measure.pairs(subject, measure.chosen(all_coders("tiny"), ARMS))
    made = measure.measure(subject, todo, rows.Provenance.now("quick"))
    rows_file.append_rows(out, made)


if __name__ == "__main__":
    place, threads, *outs = sys.argv[1:]
    torch.set_num_threads(int(threads))
    perceptual.download = refuse
    for name in outs:  # cold, then warm
        record(Path(place), Path(place) / name)
