"""Small files that promise or hide much: refused in one sentence, at once, in little memory.

Each is read in a process of its own, which is ended when it takes too long or too much.
"""

from __future__ import annotations

import bz2
import os
import time
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from eval.readers import mgh, nifti, nrrd
from eval.readers.case import DATA, bomb, zipped
from eval.readers.measure import Outcome, guarded, sentence_fault
from medil.errors import InputError
from medil.volume import load

pytest.importorskip("nrrd", reason="pynrrd (extra nrrd) is not installed")
MOST_CPU_S, MOST_S, MOST_MB = 3.0, 60.0, 150.0
MANY = np.array([3, 2000, 1000, 1000, 1, 1, 1, 1])  # 4 GB of int16


def read(path: Path) -> Outcome:
    """Whether a file is refused in one sentence, and the processor's time for it."""
    began = time.process_time()
    try:
        load(path)
    except InputError as error:
        fault = sentence_fault(str(error).removeprefix(f"{path}: "))
        return Outcome(fault, True, took_s=time.process_time() - began)
    return Outcome("it is read")


def refused_cheaply(path: Path) -> None:
    outcome = guarded(partial(read, path), MOST_S, MOST_MB)
    assert outcome.fault == "" and outcome.is_refused
    assert outcome.took_s < MOST_CPU_S and outcome.peak_mb < MOST_MB


def nhdr(folder: Path, data_file: str, **changes: str) -> Path:
    path = folder / "in" / "scan.nhdr"
    path.parent.mkdir()
    path.write_bytes(nrrd.head(data_file=data_file, **changes))
    return path


@pytest.mark.parametrize("encoding", ["raw", "gzip"])
@pytest.mark.parametrize("place", ["absolute", "../voxels.raw", "/dev/zero", "/proc/self/mem"])
def test_voxels_outside_the_folder_of_a_header(tmp_path, place, encoding):
    (tmp_path / "voxels.raw").write_bytes(nrrd.RAW)
    name = str(tmp_path / "voxels.raw") if place == "absolute" else place
    refused_cheaply(nhdr(tmp_path, name, encoding=encoding))


@pytest.mark.parametrize("target", ["../voxels.raw", "/dev/zero"])
def test_a_link_that_leads_out_of_the_folder(tmp_path, target):
    (tmp_path / "voxels.raw").write_bytes(nrrd.RAW)
    path = nhdr(tmp_path, "link.raw")
    (path.parent / "link.raw").symlink_to(target)
    refused_cheaply(path)


def test_a_pipe_that_nobody_fills(tmp_path):
    path = nhdr(tmp_path, "pipe.raw")
    os.mkfifo(path.parent / "pipe.raw")
    refused_cheaply(path)


PROMISES = {
    "lines to skip": ("a.nrrd", nrrd.image(line_skip=str(10**15))),
    "lines to skip, compressed":
        ("a.nrrd", nrrd.image(zipped(nrrd.RAW), encoding="gzip", line_skip=str(10**15))),
    "bytes to skip": ("a.nrrd", nrrd.image(byte_skip=str(10**25))),
    "petabytes": ("a.nrrd", nrrd.image(sizes="99999999 99999999 9999999")),
    "gigabytes, compressed":
        ("a.nrrd", nrrd.image(zipped(nrrd.RAW), encoding="gzip", sizes="2000 1000 1000")),
    "gigabytes behind gzip": ("a.nrrd", nrrd.head(encoding="gzip") + bomb(nrrd.RAW, 1500)),
    "gigabytes behind bzip2":
        ("a.nrrd", nrrd.head(encoding="bzip2") + bz2.compress(nrrd.RAW + bytes(2**30 // 4))),
    "NIfTI that promises": ("a.nii.gz", zipped(nifti.content(nib.Nifti1Image, DATA, dim=MANY))),
    "NIfTI that hides": ("a.nii.gz", bomb(nifti.content(nib.Nifti1Image, DATA), 1500)),
    "MGH that promises": ("a.mgz", zipped(mgh.content(DATA, dims=[2000, 1000, 1000, 1]))),
    "MGH that hides": ("a.mgz", bomb(mgh.content(DATA), 1500)),
}  # fmt: skip


@pytest.mark.parametrize("promise", PROMISES)
def test_a_small_file_that_promises_or_hides_much(tmp_path, promise):
    name, content = PROMISES[promise]
    assert len(content) < 2e6
    (tmp_path / name).write_bytes(content)
    refused_cheaply(tmp_path / name)
