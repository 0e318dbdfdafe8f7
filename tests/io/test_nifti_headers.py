"""NIfTI headers: qform and sform on new grids, slice timing, and faults that others read over."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import torch

from medil.errors import InputError
from medil.grid import Grid
from medil.io.nifti import SLICES, place_of
from medil.latent import Latent
from medil.volume import Intensity, load, save
from tests.images import write_nifti

GRID = Grid.from_spacing((7, 8, 9), (2.0, 2.0, 2.5), (-30, -20, 10))
DATA = np.arange(GRID.n_voxels, dtype=np.int16).reshape(GRID.shape)
SCANNER = GRID.rotated((1, 2, -0.5), 17).shifted((11, 22, 33)).affine_vox2ras


def two_forms(path, q_code=1, s_code=4, sform=GRID.affine_vox2ras, unit=1.0):
    """An image whose qform and sform name different spaces."""
    scale = np.diag([unit, unit, unit, 1])
    image = nib.Nifti1Image(DATA, scale @ sform)
    image.set_qform(scale @ SCANNER, q_code)
    image.set_sform(scale @ sform, s_code)
    image.header.set_xyzt_units("mm" if unit == 1 else "meter")
    nib.save(image, path)
    return path


def on_finer_grid(path, out):
    """The image on smaller voxels, along the axes of its file."""
    volume = load(path)
    grid = volume.source.grid.with_spacing((1.0, 1.5, 1.0)).aligned(volume.grid)[0]
    return nib.load(save(volume.with_data(torch.rand(grid.shape), grid), out, force=True))


@pytest.mark.parametrize("unit", [1, 1e-3])
def test_each_form_moves_with_the_voxels_in_its_own_space(tmp_path, unit):
    old = nib.load(two_forms(tmp_path / "in.nii", unit=unit))
    new = on_finer_grid(tmp_path / "in.nii", tmp_path / "out.nii")
    q, q_code = new.get_qform(coded=True)
    s, s_code = new.get_sform(coded=True)
    assert (q_code, s_code) == (1, 4)
    to_old = np.linalg.solve(old.get_sform(), s)
    np.testing.assert_allclose(q, old.get_qform() @ to_old, atol=1e-4 * unit)
    assert np.abs(q - s)[:3, 3].max() > 10 * unit


def test_a_shear_never_goes_into_a_qform(tmp_path):
    tilted = GRID.affine_vox2ras.copy()
    tilted[1, 2] = 0.73
    for codes, expected in [((1, 1), (0, 1)), ((1, 4), (1, 4)), ((0, 2), (0, 2))]:
        two_forms(tmp_path / "in.nii", *codes, sform=tilted)
        new = on_finer_grid(tmp_path / "in.nii", tmp_path / "out.nii")
        assert (new.get_qform(coded=True)[1], new.get_sform(coded=True)[1]) == expected
        along = tilted[:3, 2] / np.linalg.norm(tilted[:3, 2])  # voxels of 1 mm
        np.testing.assert_allclose(new.get_sform()[:3, 2], along, atol=1e-5)


def test_a_qform_alone_gives_way_to_a_sform_where_a_grid_is_sheared(tmp_path):
    volume = load(write_nifti(tmp_path / "in.nii", DATA, GRID.affine_vox2ras, 1, 0))
    tilted = GRID.affine_vox2ras.copy()
    tilted[1, 2] = 0.73
    grid = Grid((5, 6, 7), tilted)
    new = nib.load(save(volume.with_data(torch.rand(grid.shape), grid), tmp_path / "out.nii"))
    assert (new.get_qform(coded=True)[1], new.get_sform(coded=True)[1]) == (0, 1)
    np.testing.assert_allclose(new.affine, tilted, atol=1e-5)


def test_a_latent_keeps_both_forms(tmp_path):
    volume = load(two_forms(tmp_path / "in.nii"))
    values, cells = torch.rand(2, 1, 2, 2, 2), volume.grid.covering(10)
    latent = Latent(*values, cells, volume.grid, Intensity(0, 1), volume.source)
    source = Latent.load(latent.save(tmp_path / "a.safetensors")).source
    save(volume.with_data(volume.data.float()), tmp_path / "out.nii", like=source)
    a, b = nib.load(tmp_path / "in.nii"), nib.load(tmp_path / "out.nii")
    for name in ("qform_code", "sform_code", "quatern_b", "qoffset_x", "srow_y", "xyzt_units"):
        np.testing.assert_array_equal(a.header[name], b.header[name])


def test_slice_timing_stays_with_its_slices_alone(tmp_path):
    image = nib.Nifti1Image(DATA, GRID.affine_vox2ras)
    image.header.set_dim_info(slice=2)
    timing = {"slice_code": 3, "slice_start": 0, "slice_end": 8, "slice_duration": 0.05}
    for name, value in timing.items():
        image.header[name] = value
    nib.save(image, tmp_path / "in.nii")
    kept = nib.load(save(load(tmp_path / "in.nii"), tmp_path / "kept.nii"))
    new = on_finer_grid(tmp_path / "in.nii", tmp_path / "new.nii")
    for name in SLICES:
        assert kept.header[name] == pytest.approx(timing[name])
        assert new.header[name] == 0


def test_a_place_says_nothing_about_the_image_that_lay_there(tmp_path):
    image = nib.Nifti1Image(DATA, GRID.affine_vox2ras)
    image.header["descrip"], image.header["cal_max"] = b"another scan", 7
    image.header.set_intent("label")
    nib.save(image, tmp_path / "like.nii")
    like = load(tmp_path / "like.nii")
    out = save(
        like.with_data(torch.rand(GRID.shape)), tmp_path / "o.nii", like=place_of(like.source)
    )
    header = nib.load(out).header
    assert (header["descrip"].item(), header["cal_max"], header["intent_code"]) == (b"", 0, 0)
    assert load(out).grid.is_close(like.grid, 1e-6)


# Headers that other readers take


def patched(path, **fields):
    """An image with fields of its header set, however wrong."""
    two_forms(path)
    content = bytearray(path.read_bytes())
    for name, value in fields.items():
        dtype, offset = nib.nifti1.header_dtype.fields[name][:2]
        array = np.asarray(value, dtype.base)
        content[offset : offset + array.nbytes] = array.tobytes()
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("fields", "note"),
    [
        ({"xyzt_units": 5}, "no known unit"),
        ({"sform_code": 4, "srow_x": [0, 0, 0, 0]}, "qform is used"),
        ({"scl_slope": 2, "scl_inter": np.inf}, "intercept"),
        ({"vox_offset": 0}, ""),
        ({"pixdim": 0}, ""),
        ({"pixdim": [1, -2]}, ""),
        ({"dim": [4, 7, 8, 9, 0]}, ""),
        ({"bitpix": 8}, ""),
    ],
)
def test_faults_of_a_header_that_others_read_over_are_read_over(tmp_path, fields, note):
    path = patched(tmp_path / "a.nii", **fields)
    volume = load(path)
    assert note in " ".join(volume.source.notes)
    assert volume.source.units[0] in ("mm", "unknown")
    expected = SCANNER if note == "qform is used" else GRID.affine_vox2ras
    np.testing.assert_allclose(volume.source.grid.affine_vox2ras, expected, atol=1e-4)
    scale = fields.get("scl_slope", 1)
    kept, again = load(save(volume, tmp_path / "kept.nii")), tmp_path / "again.nii"
    for image in (volume, kept):
        in_file = image.grid.aligned(image.source.grid)[1]
        stored = nib.orientations.apply_orientation(image.data.numpy(), in_file)
        np.testing.assert_array_equal(stored, DATA * scale)
    new = on_finer_grid(path, again)
    np.testing.assert_allclose(new.affine[:3, 3], load(again).source.grid.affine_vox2ras[:3, 3])


def test_a_quaternion_that_rounding_made_too_long_is_read(tmp_path):
    turned = GRID.rotated((1, 2, -0.5), 180).affine_vox2ras
    path = write_nifti(tmp_path / "a.nii", DATA, turned, 1, 0)
    for stretch, n_notes in [(1 + 3e-6, 0), (1.01, 1)]:
        content = bytearray(path.read_bytes())
        quaternion = np.frombuffer(bytes(content[256:268]), "f4")
        longer = quaternion / np.linalg.norm(quaternion) * stretch
        content[256:268] = longer.astype("f4").tobytes()
        (tmp_path / "long.nii").write_bytes(content)
        volume = load(tmp_path / "long.nii")
        assert len(volume.source.notes) == n_notes
        np.testing.assert_allclose(volume.source.grid.affine_vox2ras, turned, atol=1e-3)
        again = load(save(volume, tmp_path / "again.nii", force=True))
        assert again.grid.is_close(volume.grid, 1e-4)


def test_half_an_image_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"another file \(.img\)"):
        load(patched(tmp_path / "a.nii", magic=b"ni1"))
