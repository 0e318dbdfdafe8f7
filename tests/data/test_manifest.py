"""`medil.data.manifest`: published bytes or nothing, and no subject in both splits."""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from medil.data import manifest
from medil.data.manifest import (
    Entry,
    available,
    dataset,
    datasets,
    entries,
    fetch,
    fetch_all,
    reachable,
)
from medil.data.transfer import Patience
from medil.errors import InputError
from tests.web import Web, part, running, status, whole

CONTENT = b"some published bytes"


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache, and no mirror."""
    monkeypatch.setenv("MEDIL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MEDIL_DATA_MIRROR", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def web(monkeypatch) -> Iterator[Web]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("medil.data.fetch.USUAL", Patience(attempts=2, backoff_s=0.001))
    with running() as server:
        yield server


@pytest.fixture
def entry(web) -> Entry:
    """A file that this computer alone publishes."""
    return Entry(
        path="made/up.bin",
        url=web.serve("/up.bin", part(CONTENT)),
        sha256=hashlib.sha256(CONTENT).hexdigest(),
        bytes=len(CONTENT),
        licence="CC0",
        plain_http=True,
        split="train",
        dataset="made",
        subject="one",
        citation="nobody",
    )


@pytest.fixture
def manifests(tmp_path, monkeypatch) -> Path:
    """A checkout of another place, with one manifest whose hash is left open."""
    folder = tmp_path / "checkout" / "data_manifests"
    folder.mkdir(parents=True)
    monkeypatch.setattr(manifest, "repository_folder", lambda: folder.parent)
    return folder


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


# The committed manifests


def test_the_data_sets_and_their_files():
    files = {"ct": 6, "dicom": 30, "ds002748": 46, "open_ms_t1": 5, "synthseg_labels": 20}
    assert {name: len(entries(name)) for name in datasets() if entries(name)} == files
    others = {dataset(name).access for name in datasets() if name not in files}
    assert others == {"open", "registration", "agreement"}
    (description,) = dataset("ds002748").sidecars
    assert description.path == "ds002748/dataset_description.json"  # which makes it a BIDS folder
    assert [len(entries("ds002748", split)) for split in manifest.SPLITS] == [40, 6]
    kinds = {e.subject: e.kind for e in entries("open_ms_t1")}
    assert {s for s, kind in kinds.items() if kind == "brain"} == {"cross_sectional_patient07"}


@pytest.mark.parametrize("name", ["ct", "dicom", "ds002748", "open_ms_t1", "synthseg_labels"])
def test_every_entry_pins_its_bytes_and_names_its_licence(name):
    for e in entries(name):
        assert re.fullmatch(r"[0-9a-f]{64}", e.sha256)
        address = r"https://raw\.githubusercontent\.com/[^/]+/[^/]+/[0-9a-f]{40}/"
        assert re.match(address, e.url) or "source distribution" in e.how
        assert e.bytes > 1000 and e.licence and e.citation and e.dataset == name
        assert (e.shape and e.spacing_mm) or e.path.endswith(".dcm")
    for field in ("path", "url", "sha256"):
        values = [value for e in entries(name) if (value := getattr(e, field))]
        assert len(set(values)) == len(values)


@pytest.mark.parametrize("name", ["ct", "open_ms_t1", "synthseg_labels"])
def test_no_subject_is_in_both_splits(name):
    train, test = ({e.subject for e in entries(name, split)} for split in ("train", "test"))
    assert train.isdisjoint(test) and train | test == {e.subject for e in entries(name)}


def test_test_subjects_are_those_the_book_reports_on():
    held_out = {e.subject for e in entries("open_ms_t1", "test")}
    assert held_out == {"cross_sectional_patient07", "longitudinal_patient01"}
    assert len([e for e in entries("open_ms_t1", "test") if e.subject.endswith("01")]) == 2
    assert [e.subject for e in entries("synthseg_labels", "test")] == ["17", "18", "19", "20"]
    assert entries("ct", "train") == entries("dicom", "train") == []


def test_mirrored_files_hold_the_published_bytes(mirror):
    for name in datasets():
        for e in dataset(name).all_files:
            assert available(e)
            path = fetch(e)
            assert path == mirror / e.path and path.stat().st_size == e.bytes


@pytest.mark.parametrize("call", [("nope",), ("ct", "validation")])
def test_unknown_names_are_refused_with_those_there_are(call):
    with pytest.raises(InputError, match=r"open_ms_t1|train or test"):
        entries(*call)


def test_a_wheel_without_manifests_says_where_they_are(tmp_path, monkeypatch):
    monkeypatch.setattr(manifest, "repository_folder", lambda: None)
    with pytest.raises(InputError, match="checkout"):
        entries("ct")


# Fetching


def test_a_download_is_verified_and_kept(cache, entry, web):
    assert not available(entry)
    path = fetch(entry)
    assert path == cache / entry.path and path.read_bytes() == CONTENT
    assert available(entry)
    assert fetch(entry) == path
    assert len(web.requests) == 1  # the second time came from the cache
    assert files_in(cache) == [path]


@pytest.mark.parametrize("content", [CONTENT[:-1], CONTENT + b"!", b""])
def test_wrong_bytes_are_refused_and_not_kept(cache, entry, web, content):
    web.serve("/up.bin", whole(content))
    with pytest.raises(InputError, match="other bytes"):
        fetch(entry)
    assert files_in(cache) == []


def test_offline_says_the_two_ways_out(cache, entry):
    with running() as gone:
        lost = replace(entry, url=gone.address + "/up.bin")
    with pytest.raises(InputError, match=r"network.*MEDIL_DATA_MIRROR"):
        fetch(lost)
    assert files_in(cache) == [] and not reachable(lost)


def test_the_mirror_comes_before_the_cache_and_the_network(
    cache, entry, web, tmp_path, monkeypatch
):
    fetch(entry)
    monkeypatch.setenv("MEDIL_DATA_MIRROR", str(tmp_path / "mirror"))
    assert fetch(entry) == cache / entry.path  # the mirror lacks it
    mirrored = tmp_path / "mirror" / entry.path
    mirrored.parent.mkdir(parents=True)
    mirrored.write_bytes(CONTENT)
    assert fetch(entry) == mirrored
    assert len(web.requests) == 1


def test_a_local_file_needs_no_pooch(cache, entry, monkeypatch):
    fetch(entry)
    monkeypatch.setitem(sys.modules, "pooch", None)
    assert fetch(entry).read_bytes() == CONTENT
    with pytest.raises(InputError, match="downloads need pooch"):
        fetch(replace(entry, path="made/else.bin"))


def test_a_spoilt_copy_is_refused_and_named(cache, entry):
    path = fetch(entry)
    path.write_bytes(b"spoilt")
    with pytest.raises(InputError, match="does not hold the published bytes") as error:
        fetch(entry)
    assert str(path) in str(error.value)


def test_a_cache_that_cannot_be_made_names_its_variable(tmp_path, entry, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("MEDIL_CACHE", str(tmp_path / "file"))
    monkeypatch.delenv("MEDIL_DATA_MIRROR", raising=False)
    with pytest.raises(InputError, match="MEDIL_CACHE"):
        fetch(replace(entry, path="a/b/c.bin"))


def test_several_files_are_fetched_and_one_failure_is_named(cache, entry, web):
    lost = replace(entry, path="made/lost.bin", url=web.serve("/lost.bin", status(404)))
    spoilt = replace(entry, path="made/spoilt.bin")
    (cache / "made").mkdir(parents=True)
    (cache / spoilt.path).write_bytes(b"spoilt")
    failed = fetch_all([entry, lost, spoilt])
    assert list(failed) == [lost.path, spoilt.path] and (cache / entry.path).is_file()
    assert "404" in str(failed[lost.path]) and "published bytes" in str(failed[spoilt.path])


def test_a_hash_that_is_left_open_is_kept_at_the_first_fetch(cache, entry, manifests, web):
    text = """name = "made"\ntitle = "t"\nversion = "1"\nlicence = "CC0"\nterms = "None."
citation = "nobody"\nmodality = "CT"\naccess = "open"\npage = "https://example.org"\n[[file]]
path = "made/up.bin"\nplain_http = true\nurl = "URL"\nsha256 = "recorded at first fetch"
bytes = 0\nsubject = "one"\nsplit = "test"\n"""
    (manifests / "made.toml").write_text(text.replace("URL", entry.url))
    (before,) = entries("made")
    path = fetch(before)
    (after,) = entries("made")
    assert before.sha256 == "" and after.sha256 == entry.sha256
    assert (manifests / "made.lock.json").is_file() and datasets() == ["made"]
    path.unlink()
    web.serve("/up.bin", whole(b"changed since"))
    for known in (before, after):
        with pytest.raises(InputError, match="other bytes"):
            fetch(known)
    (manifests / "made.lock.json").write_text("[]")
    with pytest.raises(InputError, match="does not hold a SHA-256"):
        entries("made")


@pytest.mark.network
def test_the_smallest_published_file_can_be_downloaded(cache):
    every = (e for name in datasets() for e in entries(name) if e.url)
    smallest = min(every, key=lambda e: e.bytes)
    assert fetch(smallest).stat().st_size == smallest.bytes


def test_a_damaged_copy_is_neither_reachable_nor_passed_over(tmp_path, monkeypatch):
    entry = entries("ct")[0]
    monkeypatch.setenv("MEDIL_DATA_MIRROR", str(tmp_path))
    monkeypatch.setenv("MEDIL_CACHE", str(tmp_path / "cache"))
    (tmp_path / entry.path).parent.mkdir(parents=True)
    (tmp_path / entry.path).write_bytes(b"other bytes")
    with pytest.raises(InputError, match="published bytes"):
        reachable(entry)
