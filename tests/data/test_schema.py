"""`medil.data.schema`: a manifest with a fault is refused, by file, entry and field."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from medil.data.manifest import datasets, manifest_folder
from medil.data.schema import DataSet, read_manifest
from medil.errors import InputError

GOOD = """name = "made"
title = "made files"
version = "1"
licence = "CC0"
terms = "None."
citation = "nobody"
modality = "T1-weighted MRI"
access = "open"
page = "https://example.org/made"
kind = "head"

[[file]]
path = "made/sub-01/one.nii.gz"
url = "https://example.org/one.nii.gz"
sha256 = "{sha}"
bytes = 12
subject = "01"
session = "a"
age = 31
sex = "f"
shape = [7, 8, 9]
spacing_mm = [1, 1.5, 3.0]
split = "train"

[[file]]
path = "made/two.nii.gz"
how = "ask the authors"
sha256 = "recorded at first fetch"
bytes = 0
subject = "02"
split = "test"
licence = "MIT"
kind = "brain"
""".replace("{sha}", "ab" * 32)


def read(folder: Path, text: str, name: str = "made") -> DataSet:
    path = folder / f"{name}.toml"
    path.write_text(text, encoding="utf-8")
    return read_manifest(path)


def test_a_manifest_becomes_a_data_set_and_its_entries(tmp_path):
    found = read(tmp_path, GOOD)
    one, two = found.files
    assert (found.name, found.access, found.how) == ("made", "open", "")
    assert (one.shape, one.spacing_mm, one.age, one.sex) == ((7, 8, 9), (1.0, 1.5, 3.0), 31, "f")
    assert (one.dataset, one.subject, one.session, one.kind) == ("made", "01", "a", "head")
    assert (one.licence, two.licence, two.kind) == ("CC0", "MIT", "brain")
    assert two.sha256 == two.url == "" and two.how == "ask the authors" and two.shape is None


@pytest.mark.parametrize("name", datasets())
def test_the_committed_manifests_hold_to_the_schema(name):
    found = read_manifest(manifest_folder() / f"{name}.toml")
    assert found.name == name and (found.files or found.how)


REFUSED = [  # a text, what takes its place, what the sentence says
    ('title = "made files"\n', "", "made.toml: the field title is missing"),
    ('version = "1"', "version = 1", "made.toml: version is a line of text, not 1"),
    ('terms = "None."', 'terms = " "', "made.toml: terms is a line of text"),
    ('terms = "None."', 'terms = "a\\u001b[31mb"', "made.toml: terms is a line of text"),
    ('terms = "None."', f'terms = "{"x" * 1001}"', "terms is a text of at most 1000 characters"),
    ('terms = "None."', 'term = "None."', "made.toml: there is no field 'term' in a manifest"),
    ('name = "made"', 'name = "other"', "its name is 'other', not that of the file"),
    ('access = "open"', 'access = "free"', "access is open or registration or agreement"),
    ("https://example.org/made", "http://example.org/made", "page is an https address"),
    ("https://example.org/one", "http://example.org/one", "file 1 .* is not https"),
    ("https://example.org/one", "ftp://example.org/one", "url is an https address"),
    ("https://example.org/one", "https://me:pw@example.org/one", "url is an https address"),
    ("https://example.org/one", "https:///one", "url is an https address"),
    ("https://example.org/one.nii.gz", "", "url is an https address"),
    ("https://example.org/one", "https://example.org/a b", "url is an https address"),
    ('how = "ask the authors"\n', "", "file 2 .made/two.nii.gz. needs either the field url"),
    ('how = "ask', 'url = "https://a.org/b"\nhow = "ask', "file 2 .* needs either the field url"),
    ("ab" * 32, "AB" * 32, "file 1 .*sha256 is 64 hexadecimal digits in lower case"),
    ("ab" * 32, "ab" * 31, "sha256 is 64 hexadecimal digits"),
    ("bytes = 12", "bytes = -1", "file 1 .made/sub-01/one.nii.gz.: bytes is a whole number"),
    ("bytes = 12", "bytes = true", "bytes is a whole number from 0, not True"),
    ("bytes = 12", 'bytes = "12"', "bytes is a whole number"),
    ("bytes = 12", "bytes = 12.0", "bytes is a whole number"),
    ("bytes = 12", "byte = 12", "there is no field 'byte'"),
    ('split = "train"', 'split = "validation"', "split is train or test, not 'validation'"),
    ('split = "train"\n', "", "file 1 .*the field split is missing"),
    ("age = 31", "age = -3", "age is a number of years"),
    ("age = 31", "age = nan", "age is a number of years"),
    ('sex = "f"', 'sex = "x"', "sex is m or f"),
    ("[7, 8, 9]", "[7, 8]", "shape is three whole numbers"),
    ("[7, 8, 9]", "[7, 8, 0]", "shape is three whole numbers"),
    ("[7, 8, 9]", "[7, 8, 9.5]", "shape is three whole numbers"),
    ("[1, 1.5, 3.0]", "[1, 1.5, inf]", "spacing_mm is three sizes in mm"),
    ("[1, 1.5, 3.0]", "[1, 1.5, -3]", "spacing_mm is three sizes in mm"),
    ("[1, 1.5, 3.0]", "[1, 1.5, nan]", "spacing_mm is three sizes in mm"),
    ('subject = "02"', 'subject = "01"', "made.toml: subject 01 is in both splits"),
    ("made/two.nii.gz", "MADE/two.nii.gz", "its path must begin with made/"),
    ("made/two.nii.gz", "made/SUB-01/one.nii.gz", "lists made/SUB-01/one.nii.gz twice"),
    ("made/two.nii.gz", "other/two.nii.gz", "its path must begin with made/"),
    ("[[file]]", "[file]", "is not a TOML file"),
    ('name = "made"', "name = ", "made.toml is not a TOML file"),
]


@pytest.mark.parametrize(("old", "new", "sentence"), REFUSED)
def test_a_fault_is_one_sentence_with_file_entry_and_field(tmp_path, old, new, sentence):
    assert old in GOOD
    with pytest.raises(InputError, match=sentence) as refusal:
        read(tmp_path, GOOD.replace(old, new))
    assert str(refusal.value).isprintable() and "made.toml" in str(refusal.value)


SIDECAR = f"""
[[sidecar]]
path = "made/dataset_description.json"
url = "https://example.org/description.json"
sha256 = "{"cd" * 32}"
bytes = 7
"""


def test_sidecars_are_files_and_no_scans(tmp_path):
    found = read(tmp_path, GOOD + SIDECAR)
    (beside,) = found.sidecars
    assert len(found.files) == 2 and found.all_files == (*found.files, beside)
    assert (beside.path, beside.licence) == ("made/dataset_description.json", "CC0")


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        (
            "made/dataset",
            "../dataset",
            r"made\.toml, sidecar 1 \(\.\./dataset.*: path is a relative",
        ),
        ("cd" * 32, "recorded at first fetch", "sha256 is 64 hexadecimal digits"),
        ("bytes = 7", 'bytes = 7\nsplit = "test"', "sidecar 1 .*there is no field 'split'"),
        ("made/dataset_description.json", "made/two.nii.gz", "lists made/two.nii.gz twice"),
        ("https", "http", "sidecar 1 .* is not https"),
        ("[[sidecar]]", "[sidecar]", "each sidecar is a table that begins with"),
    ],
)
def test_a_faulty_sidecar_is_one_sentence(tmp_path, old, new, sentence):
    with pytest.raises(InputError, match=sentence):
        read(tmp_path, GOOD + SIDECAR.replace(old, new))


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "../made/two",
        "made/../../two",
        "made/..",
        "made//two",
        "made/",
        "made/.hidden",
        "made\\\\two",
        "C:/made/two",
        "made/two:stream",
        "~/two",
        "made/tw\\no",
        "made/a b",
        "made/" + "x" * 260,
        "",
    ],
)
def test_a_path_that_could_leave_its_folder_is_refused(tmp_path, path):
    with pytest.raises(InputError, match=r"made\.toml, file 2 .*path is a relative path of plain"):
        read(tmp_path, GOOD.replace("made/two.nii.gz", path))


def test_plain_http_is_allowed_by_the_entry_alone(tmp_path):
    allowed = 'plain_http = true\nurl = "http://a.org/one'
    found = read(tmp_path, GOOD.replace('url = "https://example.org/one', allowed))
    assert found.files[0].plain_http and found.files[0].url == "http://a.org/one.nii.gz"


def test_a_manifest_without_files_must_say_how_to_get_them(tmp_path):
    head = GOOD.partition("\n[[file]]")[0]
    with pytest.raises(InputError, match="lists no file; its field how must say"):
        read(tmp_path, head)
    assert read(tmp_path, 'how = "ask"\n' + head).files == ()


def test_a_file_that_is_no_manifest_is_refused(tmp_path):
    path = tmp_path / "made.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="is not a TOML file"):
        read_manifest(path)
    path.write_text("a = " + "[" * 100_000)
    with pytest.raises(InputError, match="is not a TOML file"):
        read_manifest(path)
    with path.open("wb") as file:
        file.truncate((1 << 24) + 1)
    with pytest.raises(InputError, match="larger than 16 MiB"):
        read_manifest(path)
    with pytest.raises(InputError, match="could not be read"):
        read_manifest(tmp_path / "absent.toml")


def test_a_damaged_manifest_is_read_or_refused_and_nothing_else(tmp_path):
    rng = random.Random(0)
    refused = 0
    for _ in range(400):
        damaged = bytearray(GOOD.encode())
        for _ in range(rng.choice((1, 1, 4))):
            place = rng.randrange(len(damaged))
            damaged[place : place + rng.choice((0, 1, 9))] = rng.randbytes(rng.choice((0, 1, 3)))
        path = tmp_path / "made.toml"
        path.write_bytes(damaged)
        try:
            entries = read_manifest(path).files
            assert all(e.path.startswith("made/") and ".." not in e.path for e in entries)
        except InputError as error:
            refused += 1
            assert "made.toml" in str(error)
    assert 100 < refused < 400
