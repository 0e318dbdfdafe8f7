"""Folders of DICOM series among places: which series count, and names that name nobody."""

from __future__ import annotations

import re
import shutil

import numpy as np
import pytest

from medil.errors import InputError
from medil.io.listing import list_images
from medil.volume import load, save
from tests import dicom_files as made
from tests.images import head

pydicom = pytest.importorskip("pydicom", reason="pydicom (extra dicom) is not installed")
pytestmark = pytest.mark.filterwarnings("ignore:Invalid value for VR:UserWarning")  # as made


@pytest.fixture
def export(tmp_path):
    """An export: two volumes, a localizer, a screen capture, and a series without a slice."""
    folder = tmp_path / "QUISLING_ZEBEDEE"
    study = {"StudyInstanceUID": "1.2.840.7"}
    made.write_series(folder / "a", series="1.2.3", number=4, **study)
    made.write_series(folder / "b", series="1.2.4", number=5, **study)
    made.write_series(folder / "c", (0, 3, 9, 12), series="1.2.5", number=6, **study)
    kind = {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}
    made.write_series(folder / "d", series="1.2.6", number=1, **study, **kind)
    capture = {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}
    made.write_series(folder / "e", series="1.2.7", number=99, **study, **capture)
    return folder


def test_every_series_that_is_a_volume_counts_and_the_others_are_named(export):
    found = list_images([export])
    assert [image.series for image in found.images] == ["1.2.3", "1.2.4"]
    assert [image.path for image in found.images] == [export / "a", export / "b"]
    (broken,) = found.left_out
    assert "series 6 (CT, 8 x 7, 4 images): a slice is missing: two lie 6 mm apart" in broken
    assert [re.sub(".*: series", "", text) for text in found.notes] == [
        " 1 (CT, 8 x 7, 5 images) is a localizer, no volume.",
        " 99 (CT, 8 x 7, 5 images) is a screen capture, no volume.",
    ]
    one = found.images[1]
    assert load(one.path, series=one.series).grid.shape == (8, 7, 5)


def test_names_and_subjects_hold_nothing_of_the_person(export):
    images = list_images([export]).images
    study = images[0].subject
    assert re.fullmatch("dicom-[0-9a-f]{8}", study)
    assert [(i.name, i.subject) for i in images] == [
        (f"{study}_series-4", study), (f"{study}_series-5", study),
    ]  # fmt: skip
    shown = " ".join(str((i.name, i.subject, i.series, i.covariates)) for i in images)
    assert not [secret for secret in made.SECRETS if secret in shown]


def test_series_of_one_number_in_one_folder_are_told_apart(tmp_path):
    for series in ("1.2.3", "1.2.4"):
        made.write_series(tmp_path / series, series=series)
    for path in sorted((tmp_path / "1.2.4").iterdir()):
        path.rename(tmp_path / "1.2.3" / f"{path.name}b")
    first, second = list_images([tmp_path]).images
    assert first.name != second.name and "_series-4" not in first.name
    assert first.path == second.path == tmp_path / "1.2.3"
    assert len(first.files) == len(second.files) == 5


@pytest.mark.parametrize(
    ("part", "words"),
    [("c", "a slice is missing"), ("d", "is a localizer"), ("a/IM03", "name the folder of them")],
)
def test_a_place_without_a_volume_is_refused_with_the_reason(export, part, words):
    with pytest.raises(InputError, match=words):
        list_images([export / part])


def test_a_match_without_a_volume_leaves_the_others(export):
    found = list_images([export / "*"])
    assert len(found.images) == 2 and len(found.left_out) == 3
    with_files = list_images([export / "a" / "*", export / "b"])
    assert len(with_files.images) == 1 and len(with_files.left_out) == 1


def test_a_tilted_series_says_how_it_can_be_used(tmp_path):
    made.write_series(tmp_path / "good")
    for k, pixels in enumerate(made.values()):
        one = made.slice_of(pixels, (0, 0.5 * k, 3 * k), series="1.2.9", number=7)
        made.write(tmp_path / "tilted" / f"s{k}", one)
    (sentence,) = list_images([tmp_path]).left_out
    assert (
        "a gantry tilt of 9.5 degrees" in sentence
        and "convert it first: medil convert, with" in sentence
    )


def test_a_series_of_several_volumes_is_left_out(tmp_path):
    made.write_series(tmp_path / "one", series="1.2.1")
    for time in (1, 2):
        fields = {"series": "1.2.2", "TemporalPositionIdentifier": time, "number": 8}
        made.write_series(tmp_path / f"{time}", **fields)
    found = list_images([tmp_path])
    assert [image.series for image in found.images] == ["1.2.1"]
    (sentence,) = found.left_out
    assert "series 8 (CT, 8 x 7, 10 images): the image is 4-D (8 x 7 x 5 x 2); conv" in sentence


def test_beside_images_dicom_files_do_not_count_and_a_note_says_so(export):
    save(head((4, 4, 4)), export / "a" / "scan.nii")
    found = list_images([export])
    assert [image.name for image in found.images] == ["scan"]
    assert "holds DICOM files beside images: the images alone count" in found.notes[0]


def test_a_line_of_a_table_names_the_subject_of_a_series(export):
    table = export.parent / "list.csv"
    table.write_text(f"path,subject,age\n{export.name}/a,p1,39\n{export.name}/b,p2,40\n")
    images = list_images([table]).images
    facts = [(i.name, i.subject, i.series, i.covariates.age_years) for i in images]
    assert facts == [("p1", "p1", "1.2.3", 39.0), ("p2", "p2", "1.2.4", 40.0)]
    table.write_text(f"path,subject\n{export.name},p1\n")
    names = [re.sub("dicom-[0-9a-f]{8}", "X", i.name) for i in list_images([table]).images]
    assert names == ["p1_X_series-4", "p1_X_series-5"]
    table.write_text(f"path,subject\n{export.name},p1\n{export.name}/a,p2\n")
    with pytest.raises(InputError, match="is listed as subject 'p1' and as 'p2'"):
        list_images([table])


def test_a_damaged_file_is_named(export):
    (export / "a" / "IM03").write_bytes((export / "a" / "IM03").read_bytes()[:300])
    with pytest.raises(InputError, match="IM03 is an image that is damaged"):
        list_images([export])


# Where places are listed


@pytest.fixture
def scanned(tmp_path):
    """Two series of 24 slices, one of them in slices twice as thick."""
    volume = head((24, 26, 24)).data.round().numpy().astype(np.uint16)
    for number, step_mm in ((4, 1.5), (5, 3.0)):
        for k in range(24):
            pixels = np.ascontiguousarray(volume[:, :, k] + number)
            one = made.slice_of(pixels, (0, 0, step_mm * k), series=f"1.{number}", number=number)
            made.write(tmp_path / "export" / str(number) / f"IM{k:02d}", one)
    return tmp_path / "export"


def test_a_store_holds_the_series_and_reads_unchanged_ones_once(scanned, tmp_path, run_medil):
    pytest.importorskip("click", reason="click (extra cli) is not installed")
    pytest.importorskip("zarr", reason="zarr (extra store) is not installed")
    from medil.training.store import Store

    assert run_medil("store", scanned, "-o", tmp_path / "s")[0] == 0
    facts = Store(tmp_path / "s").facts.values()
    assert sorted(f["name"].partition("_")[2] for f in facts) == ["series-4", "series-5"]
    text = "".join(p.read_text() for p in (tmp_path / "s").rglob("zarr.json"))
    assert not [secret for secret in made.SECRETS if secret in text]
    shutil.copytree(scanned, tmp_path / "copy")
    code, out, _ = run_medil("store", scanned, tmp_path / "copy", "-o", tmp_path / "s")
    assert code == 0 and "holds 2 volumes (0 new)" in out
    changed = scanned / "4" / "IM07"
    changed.write_bytes(changed.read_bytes().replace(b"Quisling", b"Quaslung"))
    code, out, _ = run_medil("store", scanned, "-o", tmp_path / "s")
    assert code == 0 and "1 new" in out


def test_age_and_sex_reach_the_index_of_a_store(tmp_path, run_medil):
    pytest.importorskip("click", reason="click (extra cli) is not installed")
    pytest.importorskip("zarr", reason="zarr (extra store) is not installed")
    from medil.training.store import Store

    save(head(), tmp_path / "a.nii")
    (tmp_path / "list.tsv").write_text("path\tsubject\tage\tsex\na.nii\tp1\t39\tF\n")
    assert run_medil("store", tmp_path / "list.tsv", "-o", tmp_path / "s")[0] == 0
    (facts,) = Store(tmp_path / "s").facts.values()
    known = {name: facts[name] for name in ("name", "subject", "age_years", "sex")}
    assert known == {"name": "p1", "subject": "p1", "age_years": 39.0, "sex": "F"}


def test_a_series_of_a_folder_can_be_the_grid_of_an_output(scanned, tmp_path, run_medil):
    pytest.importorskip("click", reason="click (extra cli) is not installed")
    made_of = ("phantom", "ball", "-o", tmp_path / "ball.nii", "--like", scanned)
    code, _, err = run_medil(*made_of)
    assert code == 2 and "there are 2 series: 4 (CT" in err and "--like-series" in err
    code, _, err = run_medil(*made_of[:4], "--like-series", 5)
    assert code == 2 and "name it with --like" in err
    assert run_medil(*made_of, "--like-series", 5)[0] == 0
    assert load(tmp_path / "ball.nii").grid.is_close(load(scanned, series=5).grid, 1e-4)


def test_real_series(mirror):
    folder = mirror / "dicom"
    if not folder.is_dir():
        pytest.skip("the mirror holds no DICOM series")
    makers = [folder / name / "anatomical/001" for name in ("ge", "siemens", "philips_enhanced")]
    images = list_images(makers).images
    assert [len(image.files) for image in images] == [4, 4, 1]
    assert len({image.subject for image in images}) == 3
    assert all(re.fullmatch("dicom-[0-9a-f]{8}_series-[0-9]+", image.name) for image in images)
    failing = folder / "failing"
    with pytest.raises(InputError, match=r"a slice is missing.*|a gantry tilt of 14\.0 degrees"):
        list_images([failing])
    beside = list_images([folder / "ge"])
    assert [image.path.name for image in beside.images] == ["001_ground_truth.nii.gz"]
    assert "holds DICOM files beside images" in beside.notes[0]
