"""Random damage to small good files: one sentence, or a volume that can be used and written.

Mutations know the fields of each format, because random bytes alone rarely reach behind the first
check of a header. CI runs the same few examples each time; ``pytest -m slow`` runs many new ones.
"""

from __future__ import annotations

import contextlib
import gzip
import re
import signal
import tracemalloc
import warnings
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

pytest.importorskip("hypothesis", reason="hypothesis (extra dev) is not installed")
pytest.importorskip("nrrd", reason="pynrrd (extra nrrd) is not installed")
pytest.importorskip("pydicom", reason="pydicom (extra dicom) is not installed")

from hypothesis import given, settings
from hypothesis import strategies as st

from eval.readers import dicom, mgh, nifti, nrrd
from eval.readers.case import DATA, Read, patched
from eval.readers.measure import sentence_fault
from medil.errors import InputError
from medil.volume import Volume, load, save

MOST_S, MOST_BYTES = 10, 2e8
FEW = settings(max_examples=150, derandomize=True, database=None, deadline=None)
MANY = settings(max_examples=20_000, database=None, deadline=None)
NIFTI1, NIFTI2 = nib.nifti1.header_dtype, nib.nifti2.header_dtype
FLOATS = [0.0, -1.0, 1e-45, 1e-30, 0.5, 1.0, 3.0, 1e10, 3e38, np.nan, np.inf, -np.inf]
INTEGERS = [0, 1, 2, 3, 4, 7, 8, 9, 16, -1, -2, 100, 348, 352, 540, 2**15 - 1, 2**31 - 1, 2**62]
WORDS = ["", "0", "1", "-1", "3", "7 8 9", "nan", "inf", "1e300", "99999999999", "(1,0,0)", "none",
         "(nan,nan,nan)", "int16", "float", "block", "gzip", "raw", "little", "big", "LPS", "mm",
         "../x", "%d", "\x1b[31m", "\"m\"", "none (1,0,0) (0,1,0) (0,0,1)", "?"]  # fmt: skip
FIELDS = ["type", "dimension", "sizes", "endian", "encoding", "space", "space directions",
          "space origin", "spacings", "space units", "byte skip", "line skip", "data file", "kinds",
          "space dimension", "labels", "centerings", "thicknesses", "axis mins"]  # fmt: skip


class Hang(BaseException):
    """A reader that does not come back; no `Exception`, which readers may catch."""


@contextlib.contextmanager
def limits():
    """Raise `Hang` after a time; fail on memory beyond a limit."""

    def stop(*_):
        raise Hang

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(MOST_S)
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < MOST_BYTES
    finally:
        tracemalloc.stop()
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def attempt(path: Path, volume_index: int | None = None) -> Volume | str:
    """A volume, or the sentence with which it is refused."""
    try:
        return load(path, volume_index)
    except InputError as error:
        text = str(error).removeprefix(f"{path}: ")
        assert not sentence_fault(text), text
        return text


def check(path: Path) -> Volume | None:
    """A file is refused in one sentence, or gives a volume that can be used and written.

    Where it holds several volumes, so does the first of them.
    """
    with warnings.catch_warnings(), limits():
        warnings.simplefilter("ignore")
        volume = attempt(path)
        if isinstance(volume, str) and "`volume_index=K` to pick one" in volume:
            volume = attempt(path, 0)
        if isinstance(volume, str):
            return None
        grid, values = volume.grid, volume.data.numpy()
        assert values.shape == grid.shape
        assert volume.source.dtype.kind == "f" or np.isfinite(values).all()
        assert np.isfinite(grid.corners_mm).all() and min(grid.spacing_mm) > 0
        assert all(note.endswith(".") and note.isprintable() for note in volume.source.notes)
        again = load(save(volume, path.with_name("again.nii"), force=True))
        assert np.array_equal(again.data.numpy(), values, equal_nan=values.dtype.kind == "f")
        reach_mm = np.abs(grid.corners_mm).max()
        assert again.grid.is_close(grid, 1e-3 * max(grid.spacing_mm) + 1e-6 * reach_mm)
        return volume


# Mutations


def bytes_of(content: bytes) -> st.SearchStrategy[bytes]:
    """Bytes flipped, cut out, put in, doubled, or cut off."""
    places = st.integers(0, max(0, len(content) - 1))

    def mutate(kind: str, at: int, n: int, new: bytes) -> bytes:
        end = at + n
        return {
            "set": content[:at] + new + content[at + len(new) :],
            "insert": content[:at] + new + content[at:],
            "remove": content[:at] + content[end:],
            "double": content[:end] + content[at:],
            "cut": content[:at],
        }[kind]

    kinds = st.sampled_from(["set", "set", "insert", "remove", "double", "cut"])
    return st.builds(mutate, kinds, places, st.integers(1, 40), st.binary(min_size=1, max_size=8))


def several(content: bytes) -> st.SearchStrategy[bytes]:
    """One to three mutations of bytes."""
    once = bytes_of(content)
    return once | once.flatmap(bytes_of) | once.flatmap(bytes_of).flatmap(bytes_of)


@st.composite
def header_fields(draw, content: bytes, header: np.dtype) -> bytes:
    """One to four fields of a binary header set to odd values."""
    fields = {}
    for name in draw(st.lists(st.sampled_from(header.names), min_size=1, max_size=4)):
        dtype, shape = header[name].base, header[name].shape
        n = int(np.prod(shape, dtype=int))
        if dtype.kind == "S":
            value = np.array(draw(st.binary(max_size=dtype.itemsize)), dtype)
        elif dtype.kind == "f":
            numbers = draw(st.lists(st.sampled_from(FLOATS), min_size=n, max_size=n))
            value = np.array(numbers).reshape(shape)
        else:
            limits = np.iinfo(dtype)
            whole = st.sampled_from(INTEGERS) | st.integers(limits.min, limits.max)
            numbers = draw(st.lists(whole, min_size=n, max_size=n))
            value = np.array([max(limits.min, min(limits.max, v)) for v in numbers]).reshape(shape)
        with np.errstate(all="ignore"):
            fields[name] = value
    return patched(content, header, fields)


@st.composite
def nrrd_fields(draw) -> bytes:
    """One to three lines of a NRRD header replaced, added or left out."""
    names = draw(st.lists(st.sampled_from(FIELDS), min_size=1, max_size=3))
    values = st.none() | st.lists(st.sampled_from(WORDS), min_size=1, max_size=3).map(" ".join)
    changes = {name.replace(" ", "_"): draw(values) for name in names}
    voxels = draw(st.sampled_from([nrrd.RAW, gzip.compress(nrrd.RAW, mtime=0)]))
    return nrrd.image(voxels, **changes)


@st.composite
def dicom_values(draw, content: bytes) -> bytes:
    """The value of one to three elements of an explicit little-endian file replaced."""
    for _ in range(draw(st.integers(1, 3))):
        places = [m.start() for m in re.finditer(rb"[\x08-\x54]\x00..(?:US|DS|IS|UI|CS)", content)]
        at = draw(st.sampled_from(places or [140]))
        n = int.from_bytes(content[at + 6 : at + 8], "little")
        texts = st.sampled_from([w.encode() for w in WORDS]) | st.binary(max_size=max(n, 1))
        value = draw(texts).ljust(n)[:n]
        length = draw(st.sampled_from([n, n, n, n, 0, 2, 65535])).to_bytes(2, "little")
        content = content[: at + 6] + length + value + content[at + 8 + n :]
    return content


@st.composite
def files(draw) -> tuple[str, bytes]:
    """The suffix and the content of a damaged file."""
    suffix = draw(st.sampled_from([".nii", ".nii2", ".nii.gz", ".mgh", ".mgz", ".nrrd", ".dcm"]))
    if suffix in (".nii", ".nii2", ".nii.gz"):
        image_class = nib.Nifti2Image if suffix == ".nii2" else nib.Nifti1Image
        codes = draw(st.sampled_from([(1, 1), (1, 0), (0, 2), (0, 0), (1, 4)]))
        data = DATA.astype(draw(st.sampled_from(["i2", "u1", "f4", "f8", "u8"])))
        endian = draw(st.sampled_from("<>"))
        good = nifti.content(image_class, data, codes=codes, endian=endian)
        header = (NIFTI2 if suffix == ".nii2" else NIFTI1).newbyteorder(endian)
        damaged = header_fields(good, header) | several(good)
    elif suffix in (".mgh", ".mgz"):
        good = mgh.content(DATA.astype(draw(st.sampled_from(["i2", "u1", "f4"]))))
        damaged = header_fields(good, nib.freesurfer.mghformat.header_dtype) | several(good)
    elif suffix == ".nrrd":
        damaged = nrrd_fields() | several(nrrd.image())
    else:
        good = draw(st.sampled_from(DICOM))
        damaged = dicom_values(good) | several(good)
    content = draw(damaged)
    if suffix in (".nii.gz", ".mgz"):
        content = gzip.compress(content, mtime=0)
        content = draw(st.just(content) | bytes_of(content))
    return suffix.replace("nii2", "nii"), content


DICOM = [
    next(iter(case.files.values()))
    for case in dicom.cases()
    if isinstance(case.right, Read) and len(case.files) == 1
]
SERIES = dicom.series()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@FEW
@given(file=files())
def test_a_damaged_file_is_one_sentence_or_a_volume(folder, file):
    suffix, content = file
    path = folder / f"scan{suffix}"
    path.write_bytes(content)
    check(path)


@settings(FEW, max_examples=40)
@given(data=st.data(), k=st.integers(0, 4))
def test_a_damaged_slice_is_never_left_out_of_a_series_in_silence(folder, data, k):
    for name, content in SERIES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    name, content = list(SERIES.items())[k]
    (folder / name).write_bytes(data.draw(dicom_values(content) | several(content)))
    volume = check(folder / "series")
    assert volume is None or 5 in volume.source.grid.shape[2:] or volume.source.notes


@pytest.mark.slow
@MANY
@given(file=files())
def test_many_damaged_files_are_one_sentence_or_a_volume(folder, file):
    suffix, content = file
    path = folder / f"scan{suffix}"
    path.write_bytes(content)
    check(path)
