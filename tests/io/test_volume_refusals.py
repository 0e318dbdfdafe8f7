"""Bad images and bad outputs: one sentence each, and nothing left behind."""

from __future__ import annotations

import os

import nibabel as nib
import numpy as np
import pytest
import torch

from medil.errors import InputError
from medil.grid import Grid
from medil.volume import Volume, load, save
from tests.images import head, marked, refused, write_nifti

nrrd = pytest.importorskip("nrrd", reason="pynrrd (extra nrrd) is not installed")

# Bad input


def bad_files(folder, grid):
    """Name, what makes the file, and words that the refusal must hold."""
    data, affine = marked(grid.shape), grid.affine_vox2ras
    yield "gone.nii.gz", lambda p: None, "does not exist"
    yield "folder.nii", lambda p: p.mkdir(), "folder"
    yield "text.nii", lambda p: p.write_text("not an image"), "not a whole, readable"
    yield "text.nii.gz", lambda p: p.write_text("not an image"), "not a whole, readable"
    yield "text.mgz", lambda p: p.write_text("not an image"), "not a whole, readable"
    yield "text.nrrd", lambda p: p.write_text("not an image"), "not a whole, readable"
    yield "magic.nrrd", lambda p: p.write_bytes(b"NRRD0(04\n\n"), "no NRRD header of a known"
    yield "space.nrrd", lambda p: write_nrrd_file(p, data, space="x" * 999), "left and right"
    yield "units.nrrd", lambda p: write_nrrd_file(p, data, **{"space units": ["x" * 999]}), "units"
    yield "empty.nii", lambda p: p.touch(), "not a whole, readable"
    yield "notes.txt", lambda p: p.write_text("words"), "unknown extension"
    yield "cut.nii.gz", lambda p: truncate(write_nifti(p, data, affine)), "not a whole, readable"
    yield "cut.nii", lambda p: truncate(write_nifti(p, data, affine)), "not a whole, readable"
    yield "cut.mgz", lambda p: truncate(write_mgh(p, data, affine)), "not a whole, readable"
    yield "cut.nrrd", lambda p: truncate(write_nrrd_file(p, data)), "not a"
    yield "flat.nii", lambda p: write_nifti(p, data[..., 0], affine), "2-D (7 x 8)"
    yield "many.nii", lambda p: write_nifti(p, np.stack([data] * 3, -1), affine), "to pick one"
    yield "more.nii", lambda p: write_nifti(p, np.zeros((2,) * 5, "i2"), affine), "5-D"
    yield "zero.nii", lambda p: write_sform(p, data, np.zeros((4, 4))), "zero"
    yield "nan.nii", lambda p: write_sform(p, data, np.full((4, 4), np.nan)), "NaN"
    yield "singular.nii", lambda p: write_sform(p, data, affine[:, [0, 0, 2, 3]]), "singular"
    yield "nothing.nii", lambda p: zero_axis(write_nifti(p, data, affine)), "size 0"
    yield "complex.nii", lambda p: write_nifti(p, data.astype("c8"), affine), "complex"
    yield "colour.nii", lambda p: write_rgb(p, grid), "RGB"


def truncate(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 3 // 5])


def write_mgh(path, data, affine):
    nib.save(nib.MGHImage(data, affine), path)
    return path


def write_nrrd_file(path, data, **fields):
    voxels = np.arange(data.size, dtype=np.int32).reshape(data.shape)
    nrrd.write(str(path), voxels, fields)
    return path


def write_sform(path, data, sform):
    """A file whose header holds this sform, however useless."""
    image = nib.Nifti1Image(data, np.eye(4))
    nib.save(image, path)
    header = bytearray(path.read_bytes())
    header[254:256] = np.int16(1).tobytes()  # sform_code
    header[280:328] = np.asarray(sform[:3], np.float32).tobytes()  # srow_x, srow_y, srow_z
    path.write_bytes(header)


def zero_axis(path):
    header = bytearray(path.read_bytes())
    header[44:46] = np.int16(0).tobytes()  # dim[2]
    path.write_bytes(header)


def write_rgb(path, grid):
    rgb = np.zeros(grid.shape, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    nib.save(nib.Nifti1Image(rgb, grid.affine_vox2ras), path)


BAD_NAMES = [name for name, _, _ in bad_files(None, Grid.from_spacing((7, 8, 9), 1.0))]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_bad_images_are_refused_in_one_sentence_that_names_them(tmp_path, grid, run_medil, name):
    make, words = next((m, w) for n, m, w in bad_files(tmp_path, grid) if n == name)
    make(tmp_path / name)
    with pytest.raises(InputError) as error:
        load(tmp_path / name)
    assert words in str(error.value)
    assert name in str(error.value)
    assert "\n" not in str(error.value) and len(str(error.value)) < 400 + len(str(tmp_path))
    before = sorted(tmp_path.iterdir())
    for verb in (("info",), ("reconstruct", "-o", tmp_path / "out.nii")):
        refused(run_medil(*verb, tmp_path / name), words)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nrrd", "a.dcm", "a"])
def test_a_pipe_is_refused_at_once(tmp_path, run_medil, name):
    os.mkfifo(tmp_path / name)
    refused(run_medil("info", tmp_path / name), "pipe or a device")


def test_voxels_behind_a_link_out_of_the_folder_are_refused(tmp_path):
    write_nrrd_file(tmp_path / "secret.nrrd", np.zeros((4, 5, 6)))
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.raw").symlink_to(tmp_path / "secret.nrrd")
    fields = "type: uint8\ndimension: 3\nsizes: 4 5 6\nencoding: raw\ndata file: a.raw\n\n"
    (tmp_path / "in" / "a.nhdr").write_text("NRRD0004\n" + fields)
    with pytest.raises(InputError, match=r"'a\.raw' leaves its folder"):
        load(tmp_path / "in" / "a.nhdr")


@pytest.mark.parametrize("name", ["a.nii", "a.mgh"])
def test_the_text_of_a_damaged_header_reaches_no_log(tmp_path, grid, capfd, caplog, name):
    write = write_mgh if name.endswith("mgh") else write_nifti
    content = bytearray(
        write(tmp_path / name, marked(grid.shape), grid.affine_vox2ras).read_bytes()
    )
    content[0:4] = b"\x1b[31"  # the version, and the size of the header
    content[70:74] = b"\x1b[31"
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError):
        load(tmp_path / name)
    assert capfd.readouterr().err == "" and caplog.text == ""


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # nibabel's, on absurd sizes
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".mgh", ".mgz", ".nrrd"])
def test_damaged_bytes_are_read_or_refused_but_never_crash(tmp_path, grid, rng, suffix):
    path = tmp_path / f"a{suffix}"
    save(Volume(torch.arange(grid.n_voxels).reshape(grid.shape).int(), grid), path)
    whole = path.read_bytes()
    n_refused = 0
    for _ in range(100):
        damaged = bytearray(whole)
        for place in rng.integers(0, min(len(whole), 360), size=3):
            damaged[place] = rng.integers(0, 256)
        path.write_bytes(damaged)
        try:
            assert load(path).data.ndim == 3
        except InputError as error:
            n_refused += 1
            assert "\n" not in str(error)
    assert n_refused > 0


@pytest.mark.parametrize("k", [-1, 3])
def test_a_volume_that_does_not_exist_cannot_be_picked(tmp_path, grid, k):
    data = np.stack([marked(grid.shape)] * 3, -1)
    write_nifti(tmp_path / "in.nii", data, grid.affine_vox2ras)
    with pytest.raises(InputError, match="K is 0 to 2"):
        load(tmp_path / "in.nii", volume_index=k)


# Outputs


def test_outputs_are_refused_before_anything_is_written(tmp_path, grid):
    volume = Volume(torch.zeros(grid.shape), grid)
    (tmp_path / "there.nii").write_text("old")
    for path, words in [
        (tmp_path / "missing" / "a.nii", "does not exist"),
        (tmp_path / "there.nii", "force=True"),
        (tmp_path / "a.xyz", "unknown extension"),
        (tmp_path / "a", "unknown extension"),
        (tmp_path / "a.nhdr", "read only"),
    ]:
        with pytest.raises(InputError, match=words):
            save(volume, path)
    assert [p.name for p in tmp_path.iterdir()] == ["there.nii"]
    assert (tmp_path / "there.nii").read_text() == "old"
    save(volume, tmp_path / "there.nii", force=True)
    assert load(tmp_path / "there.nii").grid.is_close(grid)


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_an_interrupted_save_leaves_the_old_file_and_nothing_else(
    tmp_path, grid, monkeypatch, error
):
    path = save(Volume(torch.zeros(grid.shape), grid), tmp_path / "a.nii")
    old = path.read_bytes()

    def half_write(image, target):
        target.write_bytes(b"half")
        raise error

    monkeypatch.setattr(nib, "save", half_write)
    with pytest.raises((KeyboardInterrupt, InputError)):
        save(Volume(torch.ones(grid.shape), grid), path, force=True)
    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]


def test_data_must_fit_its_grid(grid):
    with pytest.raises(InputError, match="cannot lie on a grid"):
        Volume(torch.zeros(9, 8, 7), grid)


@pytest.mark.parametrize(
    ("name", "words"),
    [("a.img", "nib-convert"), ("a.HDR", "nib-convert"), ("a.mha", "SimpleITK"),
     ("a.mhd", "WriteImage(ReadImage")],
)  # fmt: skip
def test_formats_of_others_come_with_a_way_to_convert_them(tmp_path, run_medil, name, words):
    from medil.io.listing import list_images

    (tmp_path / name).write_bytes(b"x" * 400)
    refused(run_medil("info", tmp_path / name), words)
    with pytest.raises(InputError, match="holds no image that ends in") as error:
        list_images([tmp_path])
    assert words in str(error.value)
    save(head((4, 4, 4)), tmp_path / "b.nii")
    found = list_images([tmp_path])
    assert [image.name for image in found.images] == ["b"]
    assert "holds 1 that do not count" in found.notes[0] and words in found.notes[0]
