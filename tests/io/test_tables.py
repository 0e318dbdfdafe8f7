"""Tables of scans: every encoding and separator that is read, every damage by its line."""

from __future__ import annotations

import pytest

from medil.errors import InputError
from medil.io.covariates import Covariates
from medil.io.listing import list_images
from medil.volume import save
from tests.images import head

ROWS = (
    ("path", "subject", "mask", "age", "sex", "split"),
    ("a,b.nii", "p1", "m.nii", "39", "F", "train"),
    ("c d.nii", "p2", "", "n/a", "", "test"),
)


@pytest.fixture
def folder(tmp_path):
    for name in ("a,b.nii", "c d.nii", "m.nii"):
        save(head((4, 4, 4)), tmp_path / name)
    return tmp_path


def write(folder, separator=",", end="\n", encoding="utf-8", name="list.csv"):
    lines = (separator.join(f'"{cell}"' for cell in row) for row in ROWS)
    (folder / name).write_bytes("".join(line + end for line in lines).encode(encoding))
    return folder / name


@pytest.mark.parametrize(
    "how",
    [
        {"separator": ";"}, {"separator": "\t"}, {"end": "\r\n"}, {"end": "\r"},
        {"encoding": "utf-8-sig"}, {"encoding": "utf-16"}, {"separator": ";", "end": "\r\n\r\n"},
        {"separator": "\t", "name": "list.TSV"}, {},
    ],
)  # fmt: skip
def test_every_way_to_write_a_table_gives_the_same_images(folder, how):
    found = list_images([write(folder, **how)])
    first, second = found.images
    assert (first.path, first.mask) == (folder / "a,b.nii", folder / "m.nii")
    assert (first.name, first.subject, first.covariates) == ("p1", "p1", Covariates(39, "F"))
    assert (second.path, second.mask) == (folder / "c d.nii", None)
    assert second.covariates == Covariates() and not found.left_out and not found.notes


def test_big_endian_utf_16_is_read(folder):
    (folder / "list.csv").write_bytes(b"\xfe\xff" + "Path\nc d.nii\n".encode("utf-16-be"))
    (image,) = list_images([folder / "list.csv"]).images
    assert (image.name, image.subject) == ("c d", "")


def test_columns_and_lines_that_a_spreadsheet_adds_are_empty(folder):
    (folder / "list.csv").write_text("path;age;;\nc d.nii;39,5;;\n;;;\n\n")
    (image,) = list_images([folder / "list.csv"]).images
    assert image.covariates.age_years == 39.5


DAMAGES = {
    "": "no column called 'path'",
    "file\na.nii\n": "no column called 'path'",
    "path\n": "names no volume",
    "path,subject;age\n": "line 1 holds commas and semicolons",
    "path,age,age\nc d.nii,1,2\n": "line 1 has two columns called 'age'",
    "path,subject\nc d.nii\n": "line 2 has 1 cells, and the first line 2",
    "path,subject\nc d.nii,p1\na,b.nii,p2\n": "line 3 has 3 cells, and the first line 2",
    'path,subject\n"c d.nii,p1\n': "line 2 has a quote that is not closed",
    'path,subject\n"c" d.nii,p1\n': "line 2 has a quote that is not closed, or text beside",
    "path,subject\n\n,p1\n": "line 3 names no path",
    "path,age\nc d.nii,young\n": "line 2: age 'young' is no number of years",
    "path,age\nc d.nii,-3\n": "line 2: age '-3' is no number of years",
    "path,age\nc d.nii,390\n": "line 2: age '390' is above 130 years",
    "path,sex\nc d.nii,x\x1b[31m\n": r"line 2: sex 'x \[31m' is not F, M, O",
    "path\nlist.csv\n": "line 2: .*list.csv: unknown extension",
    "path\n.\n": "line 2: .*holds no DICOM image",
}


@pytest.mark.parametrize("text", DAMAGES)
def test_a_damaged_table_is_refused_with_its_line(folder, text):
    (folder / "list.csv").write_text(text)
    with pytest.raises(InputError, match=DAMAGES[text]) as error:
        list_images([folder / "list.csv"])
    assert "list.csv" in str(error.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("path\nc d.nii\nM\u00fcller.nii\n".encode("latin-1"), "line 3 is not UTF-8"),
        ("path\nc d.nii\n".encode("utf-16-le"), "line 1 holds zero bytes"),
        ("path\nc d.nii\n".encode("utf-16")[:-1], "begins as UTF-16 and does not go on"),
    ],
)
def test_a_table_in_another_encoding_is_refused(folder, content, words):
    (folder / "list.csv").write_bytes(content)
    with pytest.raises(InputError, match=words):
        list_images([folder / "list.csv"])


def test_a_line_without_its_file_is_left_out_by_its_number(folder):
    (folder / "list.csv").write_text("path,mask\nc d.nii,\ngone.nii,\nc d.nii,gone.nii\n")
    found = list_images([folder / "list.csv"])
    assert len(found.images) == 1
    assert [text.rpartition("list.csv, ")[2] for text in found.left_out] == [
        "line 3: gone.nii does not exist.", "line 4: gone.nii does not exist.",
    ]  # fmt: skip


def test_scans_of_one_subject_keep_the_names_of_their_files(folder):
    (folder / "list.csv").write_text("path,subject\nc d.nii,p1\nm.nii,p1\n")
    images = list_images([folder / "list.csv"]).images
    assert [(i.name, i.subject) for i in images] == [("p1_c d", "p1"), ("p1_m", "p1")]


def test_one_split_is_taken_and_the_others_are_counted(folder):
    table = write(folder)
    found = list_images([table, folder / "m.nii"], split="test")
    assert [image.name for image in found.images] == ["p2", "m"]
    assert found.notes == ["scans of other splits than 'test' do not count: train (1)."]
    with pytest.raises(InputError, match=r"no scan is of the split 'val', only of test .*train"):
        list_images([table], split="val")


def test_an_open_age_is_its_lower_bound_and_a_note_says_so(folder):
    (folder / "list.csv").write_text("path,age,sex\nc d.nii,89+,Female\n")
    found = list_images([folder / "list.csv"])
    assert found.images[0].covariates == Covariates(89, "F")
    assert "line 2: age '89+' is read as 89, its lower bound" in found.notes[0]
