"""`medil.data.manifest`: published bytes or nothing, and no subject in both splits."""

from __future__ import annotations

import hashlib
import re
import urllib.error
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest

from medil.data import manifest
from medil.data.manifest import Entry, available, datasets, entries, fetch, reachable
from medil.errors import InputError

CONTENT = b"some published bytes"


@pytest.fixture
def entry() -> Entry:
    """A file that nobody published."""
    return Entry(
        path="made/up.bin",
        url="https://example.org/up.bin",
        sha256=hashlib.sha256(CONTENT).hexdigest(),
        bytes=len(CONTENT),
        licence="CC0",
        split="train",
        dataset="made",
        subject="one",
        citation="nobody",
    )


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache, and no mirror."""
    monkeypatch.setenv("MEDIL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MEDIL_DATA_MIRROR", raising=False)
    return tmp_path / "cache"


def serve(monkeypatch, content: bytes) -> list[str]:
    """Stand in for the network; gives back the addresses that were asked for."""
    asked: list[str] = []

    def urlopen(url, timeout):
        asked.append(url)
        return BytesIO(content)

    monkeypatch.setattr(manifest.urllib.request, "urlopen", urlopen)
    return asked


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


# The committed manifests


def test_the_data_sets_and_their_files():
    files = {"ct": 2, "dicom": 30, "ds002748": 46, "open_ms_t1": 5, "synthseg_labels": 20}
    assert {name: len(entries(name)) for name in datasets()} == files
    assert [len(entries("ds002748", split)) for split in manifest.SPLITS] == [40, 6]
    kinds = {e.subject: e.kind for e in entries("open_ms_t1")}
    assert {s for s, kind in kinds.items() if kind == "brain"} == {"cross_sectional_patient07"}


@pytest.mark.parametrize("name", ["ct", "dicom", "ds002748", "open_ms_t1", "synthseg_labels"])
def test_every_entry_pins_its_bytes_and_names_its_licence(name):
    for e in entries(name):
        assert re.fullmatch(r"[0-9a-f]{64}", e.sha256)
        assert re.match(r"https://raw\.githubusercontent\.com/[^/]+/[^/]+/[0-9a-f]{40}/", e.url)
        assert e.path.startswith(f"{name}/") and ".." not in e.path
        assert e.bytes > 1000 and e.licence and e.citation
        assert e.split in manifest.SPLITS and e.dataset == name
    for field in ("path", "url", "sha256"):
        values = [getattr(e, field) for e in entries(name)]
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
        for e in entries(name):
            assert available(e)
            path = fetch(e)
            assert path == mirror / e.path and path.stat().st_size == e.bytes


@pytest.mark.parametrize("call", [("nope",), ("ct", "validation")])
def test_unknown_names_are_refused_with_those_there_are(call):
    with pytest.raises(InputError, match=r"open_ms_t1|train or test"):
        entries(*call)


def test_a_wheel_without_manifests_says_where_they_are(tmp_path, monkeypatch):
    monkeypatch.setattr(manifest, "__file__", str(tmp_path / "medil" / "data" / "x.py"))
    with pytest.raises(InputError, match="checkout"):
        entries("ct")


# Fetching


def test_a_download_is_verified_and_kept(cache, entry, monkeypatch):
    asked = serve(monkeypatch, CONTENT)
    assert not available(entry)
    path = fetch(entry)
    assert path == cache / entry.path and path.read_bytes() == CONTENT
    assert available(entry)
    assert fetch(entry) == path
    assert asked == [entry.url]  # the second time came from the cache
    assert files_in(cache) == [path]


@pytest.mark.parametrize("content", [CONTENT[:-1], CONTENT + b"!", b""])
def test_wrong_bytes_are_refused_and_not_kept(cache, entry, monkeypatch, content):
    serve(monkeypatch, content)
    with pytest.raises(InputError, match="other bytes"):
        fetch(entry)
    assert files_in(cache) == []


@pytest.mark.parametrize("error", [urllib.error.URLError("no route"), TimeoutError("timed out")])
def test_offline_says_the_two_ways_out(cache, entry, monkeypatch, error):
    def urlopen(url, timeout):
        raise error

    monkeypatch.setattr(manifest.urllib.request, "urlopen", urlopen)
    with pytest.raises(InputError, match=r"network.*MEDIL_DATA_MIRROR"):
        fetch(entry)
    assert files_in(cache) == []


def test_a_download_stopped_half_way_leaves_nothing(cache, entry, monkeypatch):
    class Stopped(BytesIO):
        def read(self, size=-1):
            if self.tell():
                raise KeyboardInterrupt
            return super().read(5)

    monkeypatch.setattr(manifest.urllib.request, "urlopen", lambda url, timeout: Stopped(CONTENT))
    with pytest.raises(KeyboardInterrupt):
        fetch(entry)
    assert files_in(cache) == []


def test_the_mirror_comes_before_the_cache_and_the_network(cache, entry, tmp_path, monkeypatch):
    asked = serve(monkeypatch, CONTENT)
    fetch(entry)
    monkeypatch.setenv("MEDIL_DATA_MIRROR", str(tmp_path / "mirror"))
    assert fetch(entry) == cache / entry.path  # the mirror lacks it
    mirrored = tmp_path / "mirror" / entry.path
    mirrored.parent.mkdir(parents=True)
    mirrored.write_bytes(CONTENT)
    assert fetch(entry) == mirrored
    assert len(asked) == 1


def test_a_spoilt_copy_is_refused_and_named(cache, entry, monkeypatch):
    serve(monkeypatch, CONTENT)
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


@pytest.mark.network
def test_the_smallest_published_file_can_be_downloaded(cache):
    smallest = min((e for name in datasets() for e in entries(name)), key=lambda e: e.bytes)
    assert fetch(smallest).stat().st_size == smallest.bytes


def test_a_damaged_copy_is_neither_reachable_nor_passed_over(tmp_path, monkeypatch):
    entry = entries("ct")[0]
    monkeypatch.setenv("MEDIL_DATA_MIRROR", str(tmp_path))
    monkeypatch.setenv("MEDIL_CACHE", str(tmp_path / "cache"))
    (tmp_path / entry.path).parent.mkdir(parents=True)
    (tmp_path / entry.path).write_bytes(b"other bytes")
    with pytest.raises(InputError, match="published bytes"):
        reachable(entry)
