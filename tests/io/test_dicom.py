"""DICOM series: every voxel at its place in mm, and nothing of the person."""

from __future__ import annotations

import pickle
import traceback

import nibabel as nib
import numpy as np
import pytest
import torch

from medil.errors import InputError
from medil.latent import Latent
from medil.volume import load, save
from tests import dicom_files as made

pydicom = pytest.importorskip("pydicom", reason="pydicom (extra dicom) is not installed")
pytestmark = pytest.mark.filterwarnings("ignore:Invalid value for VR:UserWarning")  # as made

COMPARED = ("ge", "siemens", "philips_enhanced", "siemens_multiframe")


@pytest.fixture
def real(mirror):
    folder = mirror / "dicom"
    if not folder.is_dir():
        pytest.skip("the mirror holds no DICOM series")
    return folder


@pytest.fixture
def series(tmp_path):
    folder = tmp_path / "series"
    made.write_series(folder)
    return folder


def hounsfield(volume):
    """[columns, rows, slices] as `made.write_series` made it."""
    return volume.data.flip(0, 1).numpy()


# Real series


@pytest.mark.parametrize("maker", COMPARED)
def test_a_converted_series_equals_what_another_converter_made_of_it(
    real, tmp_path, run_medil, maker
):
    assert run_medil("convert", real / maker, "-o", tmp_path / "out.nii.gz") == (0, "", "")
    ours = load(tmp_path / "out.nii.gz")
    theirs = load(real / maker / "anatomical/001_ground_truth.nii.gz")
    assert ours.grid.is_close(theirs.grid, tolerance_mm=1e-4)
    assert torch.equal(ours.data, theirs.data.to(ours.data.dtype))
    assert torch.equal(ours.data.double(), theirs.data.double())


def test_both_compressions_hold_the_same_voxels(real):
    pytest.importorskip("imagecodecs", reason="imagecodecs (extra dicom) is not installed")
    one, two = (load(real / "generic" / f"compressed_{name}") for name in ("j2k", "jpegls"))
    assert one.grid == two.grid and one.grid.shape == (4, 256, 256)
    assert torch.equal(one.data, two.data) and one.data.float().std() > 10


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("gantrytilting", "a gantry tilt of 14.0 degrees"),
        ("sliceincrement", "a slice is missing: two lie 10 mm apart, between 28.11 and 38.11 mm"),
    ],
)
def test_a_broken_series_is_refused_by_the_name_of_its_fault(real, fault, words):
    with pytest.raises(InputError, match=words):
        load(real / "failing" / fault)


def test_a_tilt_is_kept_as_a_shear_on_demand(real, tmp_path, run_medil):
    out = tmp_path / "out.nii"
    assert run_medil("convert", real / "failing/gantrytilting", "-o", out, "--keep-tilt")[0] == 0
    image = nib.load(out)
    assert (int(image.header["qform_code"]), int(image.header["sform_code"])) == (0, 1)
    last = image.affine @ [0, 0, 3, 1]
    np.testing.assert_allclose(last[:3], (106.791016, 256.618866, -46.951915), atol=1e-4)


def test_a_latent_keeps_a_shear_in_its_sform_alone(tmp_path, run_medil, scan):
    for k, pixels in enumerate(made.values()):
        made.write(tmp_path / "s" / f"{k}", made.slice_of(pixels, (0, 0.5 * k, 3 * k)))
    out = tmp_path / "a.safetensors"
    assert run_medil("encode", tmp_path / "s", "-o", out, "--keep-tilt")[0] == 0
    latent = Latent.load(out)
    assert latent.source.codes == (0, 1)
    np.testing.assert_allclose(latent.source.header.get_sform()[:3, 2], (0, -0.5, 3))


# Place and value


def test_slices_go_by_their_position_alone(series):
    volume = load(series)
    assert volume.grid.shape == (8, 7, 5) and volume.grid.orientation == "RAS"
    np.testing.assert_allclose(volume.grid.spacing_mm, (1.0, 1.5, 3.0))
    first = volume.grid.ras_to_index((10.0, -5.0, 20.0))  # of the first pixel, in RAS
    np.testing.assert_allclose(first, (7, 6, 0), atol=1e-9)
    np.testing.assert_array_equal(hounsfield(volume), made.values().transpose(2, 1, 0))


def test_an_oblique_slice_lies_where_its_header_says(tmp_path):
    turned = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]
    row, column = turned[:, 0], turned[:, 1]
    normal = np.cross(row, column)
    for k, pixels in enumerate(made.values()):
        place = (np.array([4.0, -3.0, 9.0]) + 2.5 * k * normal).tolist()
        field = {"ImageOrientationPatient": [*row.tolist(), *column.tolist()]}
        made.write(tmp_path / f"s{k}", made.slice_of(pixels, place, **field))
    volume = load(tmp_path)
    point_lps = np.array([4.0, -3.0, 9.0]) + 2 * 1.0 * row + 5 * 1.5 * column + 3 * 2.5 * normal
    index = volume.grid.ras_to_index(point_lps * (-1, -1, 1))
    np.testing.assert_allclose(index, index.round(), atol=1e-6)
    assert volume.data[tuple(index.round().astype(int))] == made.values()[3, 5, 2]


def test_whole_hounsfield_units_are_stored_as_integers(tmp_path):
    made.write_series(tmp_path / "s", RescaleSlope=1, RescaleIntercept=-1024)
    volume = load(tmp_path / "s")
    assert volume.data.dtype == torch.int16 and not volume.source.is_scaled
    np.testing.assert_array_equal(
        hounsfield(volume), made.values().transpose(2, 1, 0).astype(int) - 1024
    )


def test_one_slope_is_kept_and_slopes_of_slices_are_applied_each(tmp_path):
    made.write_series(tmp_path / "one", RescaleSlope=0.37, RescaleIntercept=2)
    one = load(tmp_path / "one")
    assert one.source.dtype == np.uint16 and one.source.slope == np.float32(0.37)
    pixels = made.values()
    for k, slope in enumerate((0.5, 0.25, 3.0, 1.0, 0.1)):
        one = made.slice_of(pixels[k], (0, 0, 3 * k), RescaleSlope=slope, RescaleIntercept=k)
        made.write(tmp_path / "many" / f"{k}", one)
    many = load(tmp_path / "many")
    expected = pixels * np.array([0.5, 0.25, 3.0, 1.0, 0.1])[:, None, None]
    expected += np.arange(5)[:, None, None]
    assert many.source.dtype == np.float32
    np.testing.assert_array_equal(hounsfield(many), expected.transpose(2, 1, 0).astype("f4"))


def test_bits_beyond_the_stored_ones_are_left_out(tmp_path):
    pixels = made.values(1)[0]
    overlay = pixels | np.uint16(0xA000)
    one = made.slice_of(overlay, (0, 0, 0), BitsStored=12, HighBit=11)
    made.write(tmp_path / "a.dcm", one)
    np.testing.assert_array_equal(hounsfield(load(tmp_path))[..., 0], pixels.T)


def test_one_slice_takes_its_thickness_from_the_header(tmp_path):
    pixels = made.values(1)[0]
    path = made.write(tmp_path / "a" / "I1", made.slice_of(pixels, (0, 0, 0)))
    assert load(path).grid.spacing_mm[2] == 3.0 and load(path).source.notes == ()
    made.write(tmp_path / "b" / "I1", made.slice_of(pixels, (0, 0, 0), SliceThickness=None))
    (note,) = load(tmp_path / "b").source.notes
    assert "1 mm is assumed" in note


def enhanced(pixels, steps_mm):
    """A multi-frame dataset; its frames lie at steps along S and have slopes of their own."""
    from pydicom.dataset import Dataset

    def item(**fields):
        group = Dataset()
        for name, value in fields.items():
            setattr(group, name, value)
        return group

    image = made.slice_of(
        pixels, (0, 0, 0), ImageOrientationPatient=None, ImagePositionPatient=None,
        PixelSpacing=None, SliceThickness=None, NumberOfFrames=len(pixels),
    )  # fmt: skip
    measures = item(PixelSpacing=[1.5, 1.0], SliceThickness=3.0)
    plane = item(ImageOrientationPatient=list(made.AXIAL))
    image.SharedFunctionalGroupsSequence = [
        item(PixelMeasuresSequence=[measures], PlaneOrientationSequence=[plane])
    ]
    image.PerFrameFunctionalGroupsSequence = [
        item(
            PlanePositionSequence=[item(ImagePositionPatient=[-10.0, 5.0, 20.0 + step])],
            PixelValueTransformationSequence=[item(RescaleSlope=1, RescaleIntercept=-k)],
        )
        for k, step in enumerate(steps_mm)
    ]
    return image


def test_frames_of_one_file_are_sorted_and_scaled_each(tmp_path, series):
    pixels, order = made.values(), [3, 0, 4, 1, 2]
    path = made.write(tmp_path / "a.dcm", enhanced(pixels[order], [3 * k for k in order]))
    volume = load(path)
    assert volume.grid.is_close(load(series).grid)
    expected = pixels.astype(int) - np.argsort(order)[:, None, None]
    np.testing.assert_array_equal(hounsfield(volume), expected.transpose(2, 1, 0))


def test_volumes_at_the_same_places_are_picked_by_index(tmp_path):
    for echo in (1, 2):
        for k, pixels in enumerate(made.values()):
            one = made.slice_of(pixels + 100 * echo, (0, 0, 3 * k), EchoTime=10 * echo)
            made.write(tmp_path / f"{echo}_{k}", one)
    with pytest.raises(InputError, match="to pick one, with K from 0 to 1"):
        load(tmp_path)
    expected = made.values().transpose(2, 1, 0) + 200
    np.testing.assert_array_equal(hounsfield(load(tmp_path, volume_index=1)), expected)


def compressed(pixels, name, place_mm, **fields):
    """A dataset whose pixels [rows, columns] were compressed by a codec of imagecodecs."""
    import imagecodecs
    from pydicom.encaps import encapsulate

    encode, options, syntax = CODECS[name]
    one = made.slice_of(pixels, place_mm, **fields)
    one.PixelData = encapsulate([getattr(imagecodecs, encode)(pixels, **options)])
    one["PixelData"].VR, one.file_meta.TransferSyntaxUID = "OB", syntax
    return one


CODECS = {
    "jpeg lossless": ("jpeg8_encode", {"lossless": True}, "1.2.840.10008.1.2.4.70"),
    "jpeg-ls": ("jpegls_encode", {}, "1.2.840.10008.1.2.4.80"),
    "jpeg 2000": (
        "jpeg2k_encode",
        {"reversible": True, "level": 0, "codecformat": "j2k"},
        "1.2.840.10008.1.2.4.90",
    ),
    "htj2k": ("htj2k_encode", {}, "1.2.840.10008.1.2.4.201"),
}


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("signed", [False, True])
def test_compressed_slices_equal_plain_ones(tmp_path, series, name, signed):
    pytest.importorskip("imagecodecs", reason="imagecodecs (extra dicom) is not installed")
    fields = {"BitsStored": 12, "HighBit": 11, "PixelRepresentation": int(signed)}
    pixels = made.values().astype(int) - 1100 * signed
    for k, plane in enumerate(pixels & 0xFFF):
        one = compressed(plane.astype(np.uint16), name, (-10.0, 5.0, 20.0 + 3 * k), **fields)
        made.write(tmp_path / "c" / f"{k}", one)
    volume = load(tmp_path / "c")
    assert volume.grid == load(series).grid
    np.testing.assert_array_equal(hounsfield(volume), pixels.transpose(2, 1, 0))


def test_low_values_that_show_bright_are_noted_and_kept(tmp_path, series):
    made.write_series(tmp_path / "s", PhotometricInterpretation="MONOCHROME1")
    volume = load(tmp_path / "s")
    assert torch.equal(volume.data, load(series).data)
    assert any("MONOCHROME1" in note for note in volume.source.notes)


def test_files_without_a_preamble_are_read(tmp_path, series):
    for k, pixels in enumerate(made.values()):
        one = made.slice_of(pixels, (-10.0, 5.0, 20.0 + 3 * k))
        made.write(tmp_path / "bare" / f"{k}", one, preamble=False)
    bare = load(tmp_path / "bare")
    assert bare.grid == load(series).grid and torch.equal(bare.data, load(series).data)


# Folders


def test_other_files_and_other_objects_are_left_out_with_a_note(series):
    from pydicom.uid import EnhancedSRStorage, RTStructureSetStorage

    before = load(series)
    (series / "notes.txt").write_text("words")
    (series / ".hidden.dcm").write_text("a resource fork")
    for name, kind in (("SR", EnhancedSRStorage), ("RS.dcm", RTStructureSetStorage)):
        other = made.dataset(series=f"1.7.{len(name)}")
        other.SOPClassUID = other.file_meta.MediaStorageSOPClassUID = kind
        made.write(series / "more" / name, other)
    after = load(series)
    assert torch.equal(before.data, after.data)
    (note,) = after.source.notes
    assert "1 Enhanced SR Storage, 1 RT Structure Set Storage" in note


def test_localizers_of_a_series_are_left_out_with_a_note(series):
    before = load(series)
    fields = {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}
    turned = {**fields, "ImageOrientationPatient": [0, 1, 0, 0, 0, -1]}
    made.write(series / "scout", made.slice_of(made.values(1)[0], (0, 0, 0), **turned))
    after = load(series)
    assert before.grid == after.grid
    assert after.source.notes == ("localizers in the series were left out: 1.",)


def test_one_of_several_series_is_chosen_by_number_or_uid(tmp_path, run_medil):
    made.write_series(tmp_path / "d" / "a", series="1.2.3", number=4)
    made.write_series(tmp_path / "d" / "b", (0, 2, 4), series="1.2.9", number=7, modality="MR")
    with pytest.raises(InputError, match=r"4 \(CT, 8 x 7, 5 images\), 7 \(MR, 8 x 7, 3 images\)"):
        load(tmp_path / "d")
    for choice in (7, "7", "1.2.9"):
        assert load(tmp_path / "d", series=choice).grid.shape == (8, 7, 3)
    with pytest.raises(InputError, match="names none of them"):
        load(tmp_path / "d", series=5)
    code, _, err = run_medil("info", tmp_path / "d")
    assert code == 2 and "pass --series NUMBER_OR_UID" in err
    assert "or name a folder with one series" in err  # --like takes no --series
    code, out, _ = run_medil("info", tmp_path / "d", "--series", 7)
    assert code == 0 and "8 x 7 x 3" in out
    made.write_series(tmp_path / "d" / "c", series="1.2.10", number=7)
    with pytest.raises(InputError, match=r"1\.2\.9 \(MR.*names 2 of them"):
        load(tmp_path / "d", series=7)


def test_links_that_leave_the_folder_are_not_followed(series, tmp_path):
    before = load(series)
    outside = made.write_series(tmp_path / "other", (15, 18))
    (series / "far").symlink_to(outside[0])
    (series / "folder").symlink_to(tmp_path / "other")
    after = load(series)
    assert torch.equal(before.data, after.data)
    assert after.source.notes == ("links out of the folder, or to no file, were left out: 2.",)
    first = next(path for path in series.iterdir() if path.is_file())
    inside = series / "store"
    inside.mkdir()
    first.rename(inside / "blob")
    first.symlink_to(inside / "blob")
    with pytest.raises(InputError, match="twice or more"):
        load(series)


def test_a_folder_of_very_many_files_ends_in_a_sentence(tmp_path):
    for k in range(20_001):
        (tmp_path / str(k)).touch()
    with pytest.raises(InputError, match="more than 20,000 files"):
        load(tmp_path)


# Nothing of the person


def secrets_in(content: bytes) -> list[str]:
    return [name for name in made.SECRETS if name.encode() in content]


def test_the_person_is_in_no_file_and_no_output(tmp_path, run_medil, scan):
    folder = tmp_path / "dicom"
    made.write_series(folder, tuple(range(0, 60, 3)))
    assert set(secrets_in(next(folder.iterdir()).read_bytes())) == set(made.SECRETS)
    volume, said = load(folder), ""
    assert secrets_in(pickle.dumps(volume)) == []
    outputs = [tmp_path / name for name in ("a.nii", "a.mgh", "a.nrrd", "b.safetensors", "c.nii")]
    for verb, output in zip(("convert",) * 3 + ("encode", "reconstruct"), outputs):
        code, out, err = run_medil(verb, folder, "-o", output)
        assert code == 0, err
        said += out + err
    code, out, err = run_medil("info", folder)
    said += out + err
    assert code == 0 and secrets_in(said.encode()) == [] and "\x1b" not in said
    assert all(secrets_in(path.read_bytes()) == [] for path in outputs)
    assert Latent.load(outputs[3]).native == volume.grid


@pytest.mark.parametrize(
    "fields",
    [
        {"PixelSpacing": None},
        {"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3, "PlanarConfiguration": 0},
        {"series": "Quisling", "number": None},
        {"modality": "QUISLING"},
        {"RescaleSlope": 0},
        {"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]},
    ],
)
def test_the_person_is_in_no_refusal(tmp_path, caplog, capsys, fields):
    made.write_series(tmp_path, **fields)
    made.write(
        tmp_path / "other", made.slice_of(made.values(1)[0], (0, 0, 0), series="1.9", number=9)
    )
    caplog.clear()  # of what pydicom said when it wrote the files
    said = ""
    for choice in (None, 4, 5):
        try:
            load(tmp_path, series=choice)
        except InputError as error:
            said += "".join(traceback.format_exception(error))
    said += caplog.text + "".join(capsys.readouterr())
    assert "there are 2 series" in said and "names none of them" in said
    assert secrets_in(said.encode()) == []


def test_a_number_that_is_a_name_is_not_quoted(tmp_path):
    (path,) = made.write_series(tmp_path, (0,), RescaleSlope=1234567890)
    content = path.read_bytes()
    assert b"1234567890" in content
    path.write_bytes(content.replace(b"1234567890", b"Quisling^Z"))
    with pytest.raises(InputError, match="damaged or cut short") as error:
        load(tmp_path)
    assert secrets_in("".join(traceback.format_exception(error.value)).encode()) == []


def test_control_characters_of_names_do_not_reach_the_terminal(tmp_path, run_medil):
    folder = tmp_path / "a\x1b[2Jb"
    folder.mkdir()
    code, _, err = run_medil("info", folder)
    assert code == 2 and "\x1b" not in err and err.count("\n") == 1


def test_a_series_saved_again_is_what_it_was(series, tmp_path):
    volume = load(series)
    for name in ("a.nii.gz", "a.nrrd", "a.mgz"):
        again = load(save(volume, tmp_path / name))
        assert again.grid.is_close(volume.grid) and torch.equal(
            again.data.long(), volume.data.long()
        )
        assert again.source.orientation == volume.source.orientation == "LPS"
