"""Compressed images are verified to their end: damage is refused, never read as voxels."""

from __future__ import annotations

import bz2
import gzip

import nibabel as nib
import numpy as np
import pytest
import torch

from medil.errors import InputError
from medil.grid import Grid
from medil.io import streams
from medil.volume import Volume, load, save
from tests.images import refused, write_nifti

nrrd = pytest.importorskip("nrrd", reason="pynrrd (extra nrrd) is not installed")

GRID = Grid.from_spacing((9, 10, 11), (1.0, 1.5, 2.0))


def packed(path, rng):
    """Compressible voxels in a compressed file."""
    data = np.cumsum(rng.normal(size=GRID.shape), axis=0).round(1).astype("f4")
    if path.name == "bz2.nrrd":
        nrrd.write(str(path), data, {"encoding": "bzip2"})
        return path
    return save(Volume(torch.from_numpy(data), GRID), path)


@pytest.mark.parametrize("name", ["a.nii.gz", "a.mgz", "a.nrrd", "bz2.nrrd"])
def test_no_damaged_byte_of_a_compressed_image_passes(tmp_path, rng, name):
    whole = packed(tmp_path / name, rng).read_bytes()
    expected = load(tmp_path / name).data
    start = whole.index(b"\n\n") + 2 if name.endswith("nrrd") else 0
    for place in np.linspace(start, len(whole) - 1, 60).astype(int):
        damaged = bytearray(whole)
        damaged[place] ^= 255
        (tmp_path / name).write_bytes(damaged)
        try:
            assert torch.equal(load(tmp_path / name).data, expected)  # time, name in a gzip header
        except InputError as error:
            assert "\n" not in str(error)
        else:
            assert place < start + 10


@pytest.mark.parametrize("name", ["a.nii.gz", "a.mgz", "a.nrrd", "bz2.nrrd"])
@pytest.mark.parametrize("missing", [1, 4, 8, 9])
def test_an_image_without_its_last_bytes_is_refused(tmp_path, rng, name, missing):
    path = packed(tmp_path / name, rng)
    path.write_bytes(path.read_bytes()[:-missing])
    with pytest.raises(InputError, match="not a whole, readable"):
        load(path)


def test_a_damaged_gzip_is_refused_by_the_command_in_one_sentence(tmp_path, rng, run_medil):
    path = packed(tmp_path / "a.nii.gz", rng)
    damaged = bytearray(path.read_bytes())
    damaged[-6] ^= 1  # of the check sum
    path.write_bytes(damaged)
    refused(run_medil("info", path), "CRC check failed")


def test_a_volume_of_a_4d_image_is_read_only_if_the_rest_is_whole(tmp_path, rng):
    data = rng.integers(0, 99, size=(*GRID.shape, 4)).astype(np.int16)
    path = write_nifti(tmp_path / "a.nii.gz", data, GRID.affine_vox2ras)
    for k in range(4):
        np.testing.assert_array_equal(load(path, k).data, data[..., k])
    content = bytearray(path.read_bytes())
    content[-40] ^= 255
    path.write_bytes(content)
    with pytest.raises(InputError, match="not a whole"):
        load(path, 0)
    short = tmp_path / "short.nii"
    short.write_bytes(write_plain(tmp_path, data).read_bytes()[:-1])
    with pytest.raises(InputError, match="1 bytes are missing"):
        load(short, 0)


def write_plain(folder, data):
    return write_nifti(folder / "plain.nii", data, GRID.affine_vox2ras)


@pytest.mark.parametrize("kind", ["members", "plain named gz", "gz named plain"])
def test_gzip_is_known_by_its_bytes(tmp_path, rng, kind):
    data = rng.integers(0, 99, size=GRID.shape).astype(np.int16)
    plain = write_plain(tmp_path, data).read_bytes()
    name, content = {
        "members": ("a.nii.gz", gzip.compress(plain[:700]) + gzip.compress(plain[700:])),
        "plain named gz": ("a.nii.gz", plain),
        "gz named plain": ("a.nii", gzip.compress(plain)),
    }[kind]
    (tmp_path / name).write_bytes(content)
    np.testing.assert_array_equal(load(tmp_path / name).data, data)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_bytes_behind_the_voxels_are_left_out_with_a_note(tmp_path, rng, suffix):
    data = rng.integers(0, 99, size=GRID.shape).astype(np.int16)
    content = write_plain(tmp_path, data).read_bytes() + bytes(1200)
    path = tmp_path / f"a{suffix}"
    path.write_bytes(gzip.compress(content) if suffix.endswith("gz") else content)
    volume = load(path)
    np.testing.assert_array_equal(volume.data, data)
    assert "1,200 bytes behind" in volume.source.notes[0]


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nrrd", "bz2.nrrd"])
def test_a_file_that_inflates_without_end_is_refused(tmp_path, rng, monkeypatch, name):
    monkeypatch.setattr(streams, "MOST_BEHIND", 2**20)
    monkeypatch.setattr("medil.io.nrrd.MOST_BEHIND", 2**20)
    path = packed(tmp_path / name, rng)
    content = path.read_bytes()
    if name.endswith(".nrrd"):
        head, _ = content.split(b"\n\n", 1)
        compress = bz2.compress if "bz2" in name else gzip.compress
        path.write_bytes(head + b"\n\n" + compress(bytes(2**23)))
    else:
        path.write_bytes(gzip.compress(gzip.decompress(content) + bytes(2**23)))
    with pytest.raises(InputError, match="inflates to far more"):
        load(path)


def test_an_mgz_keeps_its_footer_and_its_tags(tmp_path, rng):
    image = nib.MGHImage(rng.normal(size=GRID.shape).astype("f4"), GRID.affine_vox2ras)
    image.header["tr"], image.header["flip_angle"] = 2300, 0.2
    nib.save(image, tmp_path / "plain.mgh")
    content = (tmp_path / "plain.mgh").read_bytes() + b"tags of FreeSurfer"
    (tmp_path / "a.mgz").write_bytes(gzip.compress(content))
    volume = load(tmp_path / "a.mgz")
    assert (volume.source.header["tr"], volume.source.notes) == (2300, ())
    np.testing.assert_array_equal(volume.data, image.dataobj)
