"""The page on headers says in the browser what `medil info` says, line by line."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from eval import browser
from medil.cli.describe import describe_file
from medil.config import preset
from medil.errors import InputError
from medil.grid import Grid
from medil.volume import load
from tests.fragments import opened

SHAPE = (13, 18, 7)


def affine(spacing=(0.9, 0.9, 3.0), origin=(-6.2, -11.25, 4.4), turn=0.0, flips=(1, 1, 1)):
    """[4, 4] of a grid, turned about an axis that is none of the world's."""
    made = Grid.from_spacing(SHAPE, spacing, origin, np.diag(np.array(flips, dtype=float)))
    return made.rotated((1, 2, 0.5), turn).affine_vox2ras


def nifti(matrix, codes=(1, 1), kind=nib.Nifti1Image, dtype=np.int16, shape=SHAPE, **header):
    """An image with both forms, unless codes say otherwise; fields of the header are set last."""
    image = kind(np.zeros(shape, dtype), matrix)
    image.set_qform(matrix, codes[0])
    image.set_sform(matrix, codes[1])
    image.header.set_xyzt_units("mm", "sec")
    for name, value in header.items():
        image.header[name] = value
    return image


def apart(**change):
    """Two forms that differ: the sform is moved or turned."""
    image = nifti(affine())
    image.set_sform(affine(**change), 1)
    return image


def swapped(image):
    """The same image with its header in the other byte order."""
    other = nib.Nifti1Image(image.dataobj, None, image.header.as_byteswapped(">"))
    other.header.set_data_dtype(">i2")
    return other


def mgh(matrix):
    return nib.MGHImage(np.zeros(SHAPE, np.float32), matrix)


HALF = (-5.75, -11.25, 5.9)
CENTRED = tuple(-np.array(SHAPE) / 2 * (0.9, 0.9, 3.0))
FIXTURES = {
    "oblique.nii": lambda: nifti(affine(turn=17.0)),
    "lps.nii.gz": lambda: nifti(affine(flips=(-1, -1, 1))),
    "wrong_pixdim.nii": lambda: nifti(affine(), (0, 1), pixdim=[1, 1, 1, 1, 1, 1, 1, 1]),
    "sform_0.nii": lambda: nifti(affine(turn=5.0), (1, 0)),
    "qform_0.nii": lambda: nifti(affine(turn=5.0), (0, 2)),
    "no_forms.nii.gz": lambda: nifti(affine(), (0, 0), pixdim=[1, 1, 0, 2, 1, 1, 1, 1]),
    "both.nii": lambda: apart(turn=40.0),
    "mirrored.nii": lambda: apart(flips=(-1, 1, 1)),
    "half_voxel.nii": lambda: apart(origin=HALF),
    "corner_at_0.nii": lambda: nifti(affine(origin=CENTRED)),
    "thick.nii.gz": lambda: nifti(affine((0.4297, 0.4297, 6.5))),
    "metres.nii": lambda: nifti(affine((5e-4, 5e-4, 2e-3), (0.01, 0, 0)), xyzt_units=1),
    "plain.mgh": lambda: mgh(affine()),
    "oblique.mgz": lambda: mgh(affine((1, 1, 1), turn=-33.0, flips=(-1, 1, -1))),
    "scaled.nii": lambda: nifti(affine(), scl_slope=0.05, scl_inter=-1000),
    "four_d.nii.gz": lambda: nifti(affine(), shape=(*SHAPE, 5)),
    "big_endian.nii": lambda: swapped(nifti(affine(turn=3.0))),
    "second.nii": lambda: nifti(affine(turn=3.0), (2, 4), nib.Nifti2Image, np.float64),
}


def write(name: str, folder: Path) -> Path:
    path = folder / name
    nib.save(FIXTURES[name](), path)
    if name in ("scaled.nii", "no_forms.nii.gz"):
        patch(path, FIXTURES[name]().header)
    return path


def patch(path: Path, header) -> None:
    """Put back what nibabel changes while it writes: scaling, and voxel sizes of 0."""
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rb") as file:
        data = file.read()
    with opener(path, "wb") as file:
        file.write(header.binaryblock + data[348:])


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    with opened(tmp_path_factory.mktemp("site"), "header") as page:
        yield page


def described(page: browser.Page, path: Path) -> dict:
    """What the page says of a file that is chosen."""
    page.evaluate("Medil.header.last = null")
    page.choose("#medil-header-file", path)
    return page.evaluate("""new Promise((done) => {
      const wait = () => Medil.header.last ? done(Medil.header.last) : setTimeout(wait, 5);
      wait();
    })""")


def from_python(path: Path) -> list[list[str]]:
    config = preset("tiny").model
    source = load(path, volume_index=0).source
    facts = describe_file(source, config.latent_spacing_mm, config.latent_channels)
    return [list(fact) for fact in facts]


@pytest.mark.parametrize("name", FIXTURES)
def test_the_page_says_what_medil_info_says(page, name, tmp_path):
    path = write(name, tmp_path)
    told = described(page, path)
    assert told["error"] == ""
    assert told["facts"] == from_python(path)


def test_what_the_fixtures_are_about_is_said(tmp_path):
    expected = {
        "oblique.nii": "15.28, 8.27, 16.59",
        "lps.nii.gz": "LPS",
        "wrong_pixdim.nii": "(pixdim), its sform 0.9 x 0.9 x 3 mm",
        "sform_0.nii": "the qform alone",
        "qform_0.nii": "the sform alone",
        "no_forms.nii.gz": "neither qform nor sform",
        "mirrored.nii": "and differ in what is left and right",
        "half_voxel.nii": "qform and sform lie half a voxel apart along i, k",
        "corner_at_0.nii": "half a voxel from the middle of the box along i, j, k",
        "four_d.nii.gz": "5, one of which is described",
        "scaled.nii": "value = stored * 0.05 + -1000",
    }
    for name, words in expected.items():
        facts = from_python(write(name, tmp_path))
        assert words in " ".join(text for _, text in facts), name


def test_only_what_is_half_a_voxel_off_is_suspected(tmp_path):
    suspects = {
        name
        for name in FIXTURES
        if dict(from_python(write(name, tmp_path)))["half_voxel"] != "no sign"
    }
    assert suspects == {"half_voxel.nii", "corner_at_0.nii"}


@pytest.mark.parametrize("change", ["text", "colours", "pair", "nan"])
def test_what_cannot_be_read_is_one_sentence_as_in_python(page, change, tmp_path):
    image, path = nifti(affine()), tmp_path / "bad.nii"
    if change == "nan":
        image.header["srow_x"] = np.nan
        image.header["qform_code"] = 0
    raw = bytearray(image.header.binaryblock + bytes(4 + 2 * int(np.prod(SHAPE))))
    if change == "text":
        raw = bytearray(b"not an image " * 50)
    if change == "colours":
        raw[70:72] = (128).to_bytes(2, "little")
    if change == "pair":
        raw[344:348] = b"ni1\0"
    path.write_bytes(raw)
    with pytest.raises(InputError) as refused:
        load(path)
    assert str(refused.value) == f"{path}: {described(page, path)['error']}"


def test_names_are_text_and_never_markup(page, tmp_path):
    path = write("oblique.nii", tmp_path).rename(tmp_path / "<img src=x onerror=alert(1)>.nii")
    described(page, path)
    assert page.evaluate("document.querySelectorAll('.medil-header img').length") == 0


def test_numbers_are_written_as_python_writes_them(page):
    rng = np.random.default_rng(0)
    numbers = [0.125, 0.375, -0.004, 2.5, 1e-5, 123456.5, 0.99999999, 99999.5, -1e22]
    numbers += (rng.normal(size=200) * 10.0 ** rng.integers(-8, 9, 200)).tolist()
    for number in numbers:
        written = page.evaluate(
            f"[Medil.text.fixed({number!r}), Medil.text.general({number!r}, 3), "
            f"Medil.text.general({number!r}, 5)]"
        )
        two = f"{round(number, 2) + 0.0:.2f}"
        assert written == [two, f"{number:.3g}", f"{number:.5g}"], number


def test_the_page_asks_nobody_and_fits_a_phone(page, tmp_path):
    described(page, write("half_voxel.nii", tmp_path))
    page.size(360, 800)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.evaluate("document.querySelector('input').labels.length") == 1
    assert page.problems == []
