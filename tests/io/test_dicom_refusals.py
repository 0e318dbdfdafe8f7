"""DICOM that is no volume: one sentence that says why, and where in mm."""

from __future__ import annotations

import builtins

import numpy as np
import pytest

from medil.errors import InputError
from medil.volume import load
from tests import dicom_files as made
from tests.images import refused

pydicom = pytest.importorskip("pydicom", reason="pydicom (extra dicom) is not installed")


def write_with_one_changed(folder, **fields):
    """A series whose third slice differs."""
    made.write_series(folder)
    made.write(folder / "IM17", made.slice_of(made.values()[2], (-10, 5, 26), **fields))


def duplicated(folder):
    (folder / "copy.dcm").write_bytes(made.write_series(folder)[1].read_bytes())


def crowded(folder):
    made.write_series(folder)
    made.write(folder / "extra", made.slice_of(made.values(1)[0], (-10, 5, 23)))


def shifted(folder):
    made.write_series(folder)
    made.write(folder / "IM17", made.slice_of(made.values()[2], (-8, 5, 26)))


def localizer(folder):
    turned = ([1, 0, 0, 0, 1, 0], [0, 1, 0, 0, 0, -1], [1, 0, 0, 0, 0, -1])
    for k, axes in enumerate(turned):
        one = made.slice_of(made.values(1)[0], (0, 0, 0), ImageOrientationPatient=axes)
        made.write(folder / f"s{k}", one)


def tilted(folder):
    for k, pixels in enumerate(made.values()):
        made.write(folder / f"s{k}", made.slice_of(pixels, (0, 0.5 * k, 3 * k)))


def cut(folder, share):
    path = made.write_series(folder)[2]
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


def colours(folder):
    pixels = np.zeros((7, 8, 3), np.uint8)
    fields = {"SamplesPerPixel": 3, "PlanarConfiguration": 0, "Rows": 7, "Columns": 8}
    one = made.slice_of(pixels, (0, 0, 0), PhotometricInterpretation="RGB", **fields)
    made.write(folder / "rgb", one)


def text(folder):
    folder.mkdir()
    (folder / "a.txt").write_text("words")


REFUSALS = {  # name -> what makes the folder, words of the sentence
    "empty": (lambda f: f.mkdir(), "the folder holds no DICOM image"),
    "text": (text, "the folder holds no DICOM image"),
    "missing": (
        lambda f: made.write_series(f, (0, 3, 9, 12)),
        "a slice is missing: two lie 6 mm apart, between 23.00 and 29.00 mm towards S, where",
    ),
    "uneven": (
        lambda f: made.write_series(f, (0, 3, 6, 9.4, 12.4)),
        "unevenly spaced: two lie 3.4 mm apart, between 26.00 and 29.40 mm towards S",
    ),
    "duplicated": (duplicated, "holds slices twice or more, 1 in all, such as IM10 and copy.dcm"),
    "crowded": (crowded, "2 slices lie at one place, at 23.00 mm towards S, and fewer at others"),
    "shifted": (shifted, "the one at 26.00 mm towards S lies 2 mm off the line of the others"),
    "localizer": (localizer, "several orientations (1 axial, 1 coronal, 1 sagittal), as a localiz"),
    "tilted": (tilted, "a gantry tilt of 9.5 degrees: each slice lies 0.5 mm beside"),
    "sizes": (lambda f: write_with_one_changed(f, PixelSpacing=[2, 2]), "4 of 8 x 7 at 1 x 1.5 mm"),
    "colours": (colours, "rgb holds colours (RGB)"),
    "mosaic": (lambda f: write_with_one_changed(f, ImageType=["MOSAIC"]), "IM17 is a Siemens mos"),
    "nowhere": (
        lambda f: write_with_one_changed(f, ImagePositionPatient=None),
        "IM17 has no ImagePositionPatient",
    ),
    "oblique": (
        lambda f: write_with_one_changed(f, ImageOrientationPatient=[1, 0, 0, 1, 0, 0]),
        "IM17 has direction cosines",
    ),
    "unscaled": (
        lambda f: write_with_one_changed(f, RescaleSlope=0),
        "IM17 has a rescale slope of",
    ),
    "cine": (lambda f: write_with_one_changed(f, NumberOfFrames=3), "holds 3 frames that do not"),
    "short": (lambda f: cut(f, 0.97), "IM17 "),
    "shorter": (lambda f: cut(f, 0.6), "IM17 "),
    "shortest": (lambda f: cut(f, 0.2), "IM17 is "),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_is_no_volume_is_refused_in_one_sentence(tmp_path, run_medil, name):
    make, words = REFUSALS[name]
    make(tmp_path / "folder")
    with pytest.raises(InputError) as error:
        load(tmp_path / "folder")
    assert words in str(error.value) and str(tmp_path) in str(error.value)
    refused(run_medil("convert", tmp_path / "folder", "-o", tmp_path / "out.nii"), words[:40])
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_an_empty_file_that_calls_itself_dicom_is_refused(tmp_path):
    made.write_series(tmp_path)
    (tmp_path / "last.dcm").touch()
    with pytest.raises(InputError, match=r"last\.dcm is not DICOM, or damaged"):
        load(tmp_path)


def test_damaged_bytes_are_read_or_refused_but_never_crash(tmp_path, rng):
    paths = made.write_series(tmp_path / "s")
    whole, n_refused = paths[2].read_bytes(), 0
    for _ in range(60):
        damaged = bytearray(whole)
        for place in rng.integers(128, len(whole) - 112, size=4):
            damaged[place] = rng.integers(0, 256)
        paths[2].write_bytes(damaged)
        try:
            assert load(tmp_path / "s").data.ndim == 3
        except InputError as error:
            n_refused += 1
            assert "\n" not in str(error) and not any(s in str(error) for s in made.SECRETS)
    assert n_refused > 0


def test_a_choice_of_series_is_refused_for_an_image_file(tmp_path, scan):
    with pytest.raises(InputError, match="`series` chooses from a DICOM folder"):
        load(scan, series=3)


def compressed(stream, syntax="1.2.840.10008.1.2.4.80"):
    """A dataset of one slice whose compressed pixels are these bytes."""
    from pydicom.encaps import encapsulate

    one = made.slice_of(made.values(1)[0], (0, 0, 0))
    one.PixelData = encapsulate([stream])
    one["PixelData"].VR, one.file_meta.TransferSyntaxUID = "OB", syntax
    return one


@pytest.mark.parametrize("missing", ["pydicom", "imagecodecs"])
def test_a_missing_extra_says_what_to_install(tmp_path, monkeypatch, missing):
    made.write(tmp_path / "a", compressed(b"any"))
    whole_import = builtins.__import__

    def without(name, *rest):
        if name.split(".")[0] == missing:
            raise ImportError(name)
        return whole_import(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match=r"pip install 'medil-book\[dicom\]'"):
        load(tmp_path)


def test_compressed_pixels_that_are_damaged_are_refused(tmp_path):
    imagecodecs = pytest.importorskip("imagecodecs", reason="imagecodecs is not installed")
    pixels = made.values(1)[0]
    streams = {  # syntax -> its bytes, the marker before its size, and the distance to that
        "1.2.840.10008.1.2.4.70": (imagecodecs.jpeg8_encode(pixels, lossless=True), b"\xff\xc3", 5),
        "1.2.840.10008.1.2.4.80": (imagecodecs.jpegls_encode(pixels), b"\xff\xf7", 5),
        "1.2.840.10008.1.2.4.90": (
            imagecodecs.jpeg2k_encode(pixels, codecformat="j2k"),
            b"\xff\x51",
            8,
        ),
    }
    for syntax, (stream, marker, distance) in streams.items():
        place = stream.index(marker) + distance
        for damaged, words in (
            (stream[: len(stream) // 2], "have no end"),
            (stream[:place] + b"\x7f" + stream[place + 1 :], "of another size"),
            (b"no image\xff\xd9", "of another size"),
        ):
            made.write(tmp_path / "a", compressed(damaged, syntax))
            with pytest.raises(InputError, match=words):
                load(tmp_path)


def test_an_unknown_compression_is_refused(tmp_path):
    made.write(tmp_path / "a", compressed(b"any", "1.2.840.10008.1.2.4.100"))  # MPEG2
    with pytest.raises(InputError, match="compressed in a way that is not read"):
        load(tmp_path)
