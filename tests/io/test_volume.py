"""`medil.volume`: a file comes back as it was, and a voxel stays where it is in mm."""

from __future__ import annotations

import itertools

import nibabel as nib
import numpy as np
import pytest
import torch

from medil.errors import InputError
from medil.grid import Grid
from medil.volume import Volume, load, save, save_slabs
from tests.images import MARK, marked, write_nifti

nrrd = pytest.importorskip("nrrd", reason="pynrrd (extra nrrd) is not installed")

ORIENTATIONS = ("RAS", "LPS", "LIA", "oblique", "oblique LIA")


def make_grid(name: str, grid: Grid, oblique_grid: Grid) -> Grid:
    """The small uneven grid in an orientation."""
    if name.startswith("oblique"):
        return oblique_grid if name == "oblique" else oblique_grid.reoriented(name[-3:])[0]
    return grid.reoriented(name)[0]


@pytest.fixture(params=ORIENTATIONS)
def placed(request, grid, oblique_grid) -> Grid:
    return make_grid(request.param, grid, oblique_grid)


# Where voxels are


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".mgz", ".mgh"])
def test_a_marked_voxel_is_found_at_its_position_in_mm(tmp_path, placed, suffix):
    path = tmp_path / f"image{suffix}"
    image_class = nib.MGHImage if "mg" in suffix else nib.Nifti1Image
    nib.save(image_class(marked(placed.shape), placed.affine_vox2ras), path)
    volume = load(path)
    assert volume.grid.orientation == "RAS"
    found = volume.grid.index_to_ras(torch.nonzero(volume.data == 100).numpy())
    np.testing.assert_allclose(found, [placed.index_to_ras(MARK)], atol=2e-5)  # float32 header


@pytest.mark.parametrize("space", ["LPS", "RAS", "LAS", "left-posterior-superior"])
def test_a_marked_nrrd_voxel_is_found_at_its_position_in_mm(tmp_path, placed, space):
    long = {"RAS": "right-anterior-superior", "LAS": "left-anterior-superior"}
    signs = {"RAS": (1, 1, 1), "LAS": (-1, 1, 1)}.get(space, (-1, -1, 1))
    affine = np.diag([*signs, 1]) @ placed.affine_vox2ras
    header = {
        "space": long.get(space, "left-posterior-superior"),
        "space directions": affine[:3, :3].T,
        "space origin": affine[:3, 3],
        "centerings": ["cell"] * 3,  # changes nothing: the origin is a centre in either case
    }
    nrrd.write(str(tmp_path / "image.nrrd"), marked(placed.shape), header)
    volume = load(tmp_path / "image.nrrd")
    assert volume.grid.orientation == "RAS"
    found = volume.grid.index_to_ras(torch.nonzero(volume.data == 100).numpy())
    np.testing.assert_allclose(found, [placed.index_to_ras(MARK)], atol=1e-10)


@pytest.mark.parametrize(("unit", "mm"), [("meter", 1000.0), ("micron", 1e-3), ("unknown", 1.0)])
def test_units_of_the_header_become_mm_and_go_back(tmp_path, grid, unit, mm):
    affine = grid.affine_vox2ras.copy()
    affine[:3] /= mm
    path = write_nifti(tmp_path / "in.nii", marked(grid.shape), affine, units=(unit, "msec"))
    volume = load(path)
    np.testing.assert_allclose(volume.grid.affine_vox2ras, grid.affine_vox2ras, rtol=1e-6)
    finer = volume.grid.with_spacing(0.5)
    for name, target in (("same", volume.grid), ("finer", finer)):
        out = save(volume.with_data(torch.ones(target.shape), target), tmp_path / f"{name}.nii")
        assert nib.load(out).header.get_xyzt_units() == (unit, "msec")
        assert load(out).grid.is_close(target, 1e-4)


@pytest.mark.parametrize("unit, mm", [("cm", 10.0), ("m", 1000.0), ("um", 1e-3)])
def test_units_of_a_nrrd_become_mm(tmp_path, unit, mm):
    nrrd = pytest.importorskip("nrrd", reason="pynrrd (extra nrrd) is not installed")
    header = {
        "space": "left-posterior-superior", "space units": [unit] * 3,
        "space directions": np.diag((1.5, 2.0, 3.0)) / mm,
        "space origin": np.array([10, 20, 30]) / mm,
    }  # fmt: skip
    nrrd.write(str(tmp_path / "a.nrrd"), np.arange(24.0, dtype="f4").reshape(2, 3, 4), header)
    grid = load(tmp_path / "a.nrrd").grid
    np.testing.assert_allclose(grid.spacing_mm, (1.5, 2.0, 3.0))
    first = [[1, 2, 0]]  # of the file, whose axes run to the left and to the back
    np.testing.assert_allclose(grid.index_to_ras(first), [[-10, -20, 30]])


# Round trips


def assert_same_image(a, b) -> None:
    """Two NIfTI or MGH files that say the same, to the last bit of every header field."""
    assert type(a) is type(b)
    assert a.shape == b.shape
    assert a.get_data_dtype() == b.get_data_dtype()
    np.testing.assert_allclose(a.affine, b.affine, atol=1e-6)
    np.testing.assert_array_equal(a.dataobj.get_unscaled(), b.dataobj.get_unscaled())
    assert (a.dataobj.slope, a.dataobj.inter) == (b.dataobj.slope, b.dataobj.inter)
    for key in a.header.keys():  # noqa: SIM118 - a header is not a mapping
        np.testing.assert_array_equal(a.header[key], b.header[key], err_msg=key)


@pytest.mark.parametrize(
    "dtype", ["u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8", ">i2"]
)
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_nifti_comes_back_as_it_was(tmp_path, placed, rng, dtype, kind):
    data = rng.integers(0, 120, size=placed.shape).astype(dtype)
    path = write_nifti(tmp_path / "in.nii.gz", data, placed.affine_vox2ras, kind=kind)
    volume = load(path)
    assert volume.source.kind == ("nifti2" if kind is nib.Nifti2Image else "nifti1")
    out = save(volume, tmp_path / "out.nii.gz")
    assert_same_image(nib.load(path), nib.load(out))


@pytest.mark.parametrize("codes", list(itertools.product((0, 1, 2, 4), (0, 1, 3))))
def test_codes_survive_and_each_form_keeps_its_own_affine(tmp_path, oblique_grid, codes):
    image = nib.Nifti1Image(marked(oblique_grid.shape), oblique_grid.affine_vox2ras)
    image.set_qform(oblique_grid.affine_vox2ras, codes[0])
    image.set_sform(oblique_grid.shifted((0.5, 0, 0)).affine_vox2ras, codes[1])
    nib.save(image, tmp_path / "in.nii")
    out = save(load(tmp_path / "in.nii"), tmp_path / "out.nii")
    a, b = nib.load(tmp_path / "in.nii"), nib.load(out)
    assert_same_image(a, b)
    assert (int(b.header["qform_code"]), int(b.header["sform_code"])) == codes
    assert load(out).source.codes == codes


def test_an_image_without_codes_says_that_its_position_is_assumed(tmp_path, grid):
    path = write_nifti(tmp_path / "in.nii", marked(grid.shape), np.eye(4), 0, 0)
    assert "no qform and no sform" in load(path).source.notes[0]


@pytest.mark.parametrize("codes", [(1, 0), (0, 1), (2, 1), (0, 0)])
def test_a_new_grid_is_written_under_the_old_codes(tmp_path, oblique_grid, codes):
    path = write_nifti(
        tmp_path / "in.nii", marked(oblique_grid.shape), oblique_grid.affine_vox2ras, *codes
    )
    volume = load(path)
    finer = volume.grid.with_spacing((0.7, 0.8, 0.9))
    out = save(volume.with_data(torch.rand(finer.shape), finer), tmp_path / "out.nii")
    again = load(out)
    assert again.grid.is_close(finer, 1e-4)
    assert again.source.codes == (codes if any(codes) else (2, 2))
    assert again.source.orientation == volume.source.orientation
    np.testing.assert_allclose(nib.load(out).header.get_zooms(), again.source.grid.spacing_mm, 1e-5)


@pytest.mark.parametrize("suffix", [".mgz", ".mgh"])
@pytest.mark.parametrize("dtype", ["u1", "i2", "i4", "f4"])
def test_mgh_comes_back_as_it_was(tmp_path, placed, rng, suffix, dtype):
    data = rng.integers(0, 120, size=placed.shape).astype(dtype)
    path = tmp_path / f"in{suffix}"
    nib.save(nib.MGHImage(data, placed.affine_vox2ras), path)
    out = save(load(path), tmp_path / f"out{suffix}")
    assert_same_image(nib.load(path), nib.load(out))


@pytest.mark.parametrize("encoding", ["raw", "gzip"])
def test_nrrd_comes_back_as_it_was(tmp_path, placed, rng, encoding):
    data = rng.integers(-1000, 2000, size=placed.shape).astype(np.int16)
    header = {
        "space": "left-posterior-superior",
        "space directions": np.diag([-1, -1, 1]) @ placed.affine_vox2ras[:3, :3],
        "space origin": [-12.345678901234, 3.0, 4.0],
        "encoding": encoding,
        "kinds": ["domain"] * 3,
        "content": "a chest",
    }
    header["space directions"] = header["space directions"].T
    nrrd.write(str(tmp_path / "in.nrrd"), data, header)
    save(load(tmp_path / "in.nrrd"), tmp_path / "out.nrrd")
    (data_a, a), (data_b, b) = (nrrd.read(str(tmp_path / n)) for n in ("in.nrrd", "out.nrrd"))
    np.testing.assert_array_equal(data_a, data_b)
    assert data_a.dtype == data_b.dtype
    assert {k: str(v) for k, v in a.items()} == {k: str(v) for k, v in b.items()}


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".mgz", ".nrrd"])
@pytest.mark.parametrize("start", [".nii", ".mgz", ".nrrd"])
def test_changing_the_format_moves_nothing(tmp_path, oblique_grid, rng, start, suffix):
    placed = oblique_grid.reoriented("LIA")[0]
    data = rng.integers(0, 99, size=placed.shape).astype(np.int16)
    write_nifti(tmp_path / "in.nii", data, placed.affine_vox2ras)
    first = load(save(load(tmp_path / "in.nii"), tmp_path / f"first{start}"))
    second = load(save(first, tmp_path / f"second{suffix}"))
    assert second.grid.is_close(first.grid, 1e-4)
    assert second.source.orientation == "LIA"
    assert second.source.dtype == np.int16
    np.testing.assert_array_equal(second.data, first.data)


@pytest.mark.parametrize("suffix", [".nii", ".mgz", ".nrrd"])
def test_a_made_volume_is_written_in_ras(tmp_path, oblique_grid, rng, suffix):
    volume = Volume(torch.from_numpy(rng.normal(size=oblique_grid.shape)).float(), oblique_grid)
    again = load(save(volume, tmp_path / f"made{suffix}"))
    np.testing.assert_array_equal(again.data, volume.data)
    assert again.grid.is_close(volume.grid, 1e-4)
    assert again.source.orientation == "RAS"


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".mgz", ".nrrd"])
@pytest.mark.parametrize("angles", [(1, 1, 0), (1, 0, 1), (1, 1, 1), (3, 1, 1), (1, 3, 0)])
def test_a_double_oblique_of_45_degrees_keeps_the_axes_of_its_file(tmp_path, rng, angles, suffix):
    affine = np.eye(4)
    affine[:3, :3] = nib.eulerangles.euler2mat(*np.multiply(angles, np.pi / 4)) * 2
    placed = Grid((5, 6, 7), affine)
    data = rng.integers(0, 99, size=placed.shape).astype(np.int16)
    path = save(load(write_nifti(tmp_path / "in.nii", data, affine)), tmp_path / f"a{suffix}")
    volume = load(path)
    assert volume.source.grid.is_close(placed, 1e-4)
    rendered = volume.with_data(volume.data.float())
    slabs = save_slabs(tmp_path / f"b{suffix}", volume.grid, volume.source, in_slabs(rendered.data))
    for out in (save(volume, tmp_path / f"c{suffix}"), save(rendered, tmp_path / "d.nii"), slabs):
        again = load(out)
        assert again.source.grid.is_close(placed, 1e-4)
        np.testing.assert_array_equal(again.data, volume.data)


def in_slabs(data: torch.Tensor):
    """What `save_slabs` takes: the planes of a volume, one by one, along any axis."""

    def make_slabs(axis, descending):
        order = range(data.shape[axis])
        for k in reversed(order) if descending else order:
            yield k, data.narrow(axis, k, 1)

    return make_slabs


def test_a_trailing_axis_of_one_is_accepted_and_given_back(tmp_path, oblique_grid, rng):
    data = rng.integers(0, 9, size=(*oblique_grid.shape, 1)).astype(np.uint8)
    path = write_nifti(tmp_path / "in.nii", data, oblique_grid.affine_vox2ras)
    volume = load(path)
    assert volume.data.shape == oblique_grid.shape
    assert_same_image(nib.load(path), nib.load(save(volume, tmp_path / "out.nii")))


@pytest.mark.parametrize("k", [0, 2])
def test_one_volume_of_a_4d_image_can_be_picked(tmp_path, oblique_grid, rng, k):
    placed = oblique_grid.reoriented("LPS")[0]
    data = rng.normal(size=(*placed.shape, 3)).astype(np.float32)
    write_nifti(tmp_path / "in.nii", data, placed.affine_vox2ras)
    volume = load(tmp_path / "in.nii", volume_index=k)
    out = nib.load(save(volume, tmp_path / "out.nii"))
    np.testing.assert_array_equal(np.asarray(out.dataobj), data[..., k])


def test_one_volume_of_a_nrrd_with_a_list_axis_can_be_picked(tmp_path, grid, rng):
    data = rng.integers(0, 99, size=(2, *grid.shape)).astype(np.int16)
    header = {
        "space": "right-anterior-superior",
        "kinds": ["list", "domain", "domain", "domain"],
        "space directions": np.vstack([[np.nan] * 3, np.diag(grid.spacing_mm)]),
        "space origin": grid.affine_vox2ras[:3, 3],
    }
    nrrd.write(str(tmp_path / "in.nrrd"), data, header)
    with pytest.raises(InputError, match="volume_index=K"):
        load(tmp_path / "in.nrrd")
    volume = load(tmp_path / "in.nrrd", volume_index=1)
    np.testing.assert_array_equal(volume.data, data[1])
    again = load(save(volume, tmp_path / "out.nrrd"))
    assert again.grid.is_close(grid, 1e-9)
    np.testing.assert_array_equal(again.data, data[1])


def test_a_nrrd_without_a_space_says_what_is_assumed(tmp_path, grid):
    nrrd.write(str(tmp_path / "in.nrrd"), marked(grid.shape), {"spacings": list(grid.spacing_mm)})
    volume = load(tmp_path / "in.nrrd")
    np.testing.assert_allclose(volume.grid.spacing_mm, grid.spacing_mm)
    assert volume.source.orientation == "LPS"
    assert "names no space" in " ".join(volume.source.notes)
    assert load(save(volume, tmp_path / "out.nrrd")).grid.is_close(volume.grid, 1e-9)


@pytest.mark.parametrize("axis", range(3))
def test_a_single_slice_that_is_stored_backwards_is_read(tmp_path, axis):
    shape = np.where(np.arange(3) == axis, 1, 3)
    affine = np.diag([*np.where(np.arange(3) == axis, -2.0, 2.0).tolist(), 1.0])
    data = np.arange(9, dtype=np.int16).reshape(shape)
    volume = load(write_nifti(tmp_path / "slice.nii", data, affine))
    assert volume.source.orientation != "RAS"
    np.testing.assert_array_equal(volume.data, data)


def test_extensions_and_description_of_a_header_survive_a_new_grid(tmp_path, grid):
    image = nib.Nifti1Image(marked(grid.shape), grid.affine_vox2ras)
    image.header["descrip"] = b"a scan"
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"kept"))
    nib.save(image, tmp_path / "in.nii")
    volume = load(tmp_path / "in.nii")
    finer = volume.grid.with_spacing(0.9)
    again = nib.load(save(volume.with_data(torch.rand(finer.shape), finer), tmp_path / "o.nii"))
    assert again.header["descrip"].item() == b"a scan"
    assert again.header.extensions[0].get_content() == b"kept"


# Values


@pytest.mark.parametrize(
    ("dtype", "slope", "inter", "expected"),
    [("i2", 0.25, -7.5, torch.float32), ("u1", 2.0, 0.0, torch.float32),
     ("i4", 0.1, 3e6, torch.float64), ("f4", 2.0, 1.0, torch.float32)],
)  # fmt: skip
def test_scaling_is_applied_and_undone_exactly(
    tmp_path, oblique_grid, rng, dtype, slope, inter, expected
):
    stored = rng.integers(0, 250, size=oblique_grid.shape).astype(dtype)
    stored.flat[0] = 2**30 + 1 if dtype == "i4" else 1
    image = nib.Nifti1Image(stored, oblique_grid.affine_vox2ras)
    image.header.set_slope_inter(slope, inter)
    nib.save(image, tmp_path / "in.nii")
    volume = load(tmp_path / "in.nii")
    assert volume.data.dtype == expected
    slope32, inter32 = np.float64(np.float32(slope)), np.float64(np.float32(inter))
    np.testing.assert_allclose(volume.data, stored * slope32 + inter32, rtol=1e-6)
    assert_same_image(nib.load(tmp_path / "in.nii"), nib.load(save(volume, tmp_path / "out.nii")))


def test_rendered_values_become_float32_and_a_label_map_keeps_its_integers(tmp_path, grid):
    path = write_nifti(tmp_path / "in.nii", marked(grid.shape), grid.affine_vox2ras)
    volume = load(path)
    rendered = nib.load(save(volume.with_data(volume.data + 0.25), tmp_path / "rendered.nii"))
    assert rendered.get_data_dtype() == np.float32
    assert (rendered.dataobj.slope, rendered.dataobj.inter) == (1.0, 0.0)
    np.testing.assert_array_equal(np.asarray(rendered.dataobj), marked(grid.shape) + 0.25)
    relabelled = nib.load(save(volume.with_data(volume.data * 3), tmp_path / "labels.nii"))
    assert relabelled.get_data_dtype() == np.int16
    too_large = nib.load(save(volume.with_data(volume.data.int() * 1000), tmp_path / "large.nii"))
    assert too_large.get_data_dtype() == np.int32
    assert np.asarray(too_large.dataobj).max() == 100_000


@pytest.mark.parametrize("suffix", [".nii.gz", ".mgz", ".nrrd"])
def test_nan_and_inf_survive_a_round_trip(tmp_path, grid, suffix):
    data = torch.zeros(grid.shape)
    data[1, 2, 3], data[0, 0, 1], data[6, 7, 8] = torch.nan, torch.inf, -torch.inf
    again = load(save(Volume(data, grid), tmp_path / f"a{suffix}"))
    np.testing.assert_array_equal(again.data, data)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.bool, torch.int64])
def test_tensor_kinds_without_a_file_kind_are_widened(tmp_path, grid, dtype):
    data = (torch.arange(grid.n_voxels) % 2).reshape(grid.shape).to(dtype)
    for suffix in (".nii", ".mgz", ".nrrd"):
        again = load(save(Volume(data, grid), tmp_path / f"a{suffix}"))
        np.testing.assert_array_equal(again.data, data.float())


def test_integers_that_mgh_cannot_hold_are_refused(tmp_path, grid):
    data = torch.full(grid.shape, 2**40)
    with pytest.raises(InputError, match="32 bits"):
        save(Volume(data, grid), tmp_path / "a.mgz")
    assert not list(tmp_path.iterdir())


# Real files


@pytest.mark.parametrize(
    "name", ["longitudinal_patient01_study1_T1W", "cross_sectional_patient07_T1_MNI"]
)
def test_real_scans_come_back_as_they_were(tmp_path, mirror, name):
    path = mirror / "open_ms_t1" / f"{name}.nii.gz"
    assert_same_image(nib.load(path), nib.load(save(load(path), tmp_path / "out.nii")))


def test_real_ct_is_in_hounsfield_units_and_superior_grows_up(tmp_path, mirror):
    volume = load(mirror / "ct" / "ct-64.nrrd")
    assert volume.grid.orientation == "RAS"
    np.testing.assert_allclose(volume.source.grid.spacing_mm, (4.171872, 4.171872, 3.98734177))
    np.testing.assert_allclose(volume.source.grid.index_to_ras([0] * 3),
                               (128.413806, 264.413806, -360.25632911))  # fmt: skip
    assert volume.data.min() < -1000 and 900 < volume.data.max() < 3000  # air, bone
    again, _ = nrrd.read(str(save(volume, tmp_path / "out.nrrd")))
    np.testing.assert_array_equal(again, nrrd.read(str(mirror / "ct" / "ct-64.nrrd"))[0])
