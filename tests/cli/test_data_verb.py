"""`medil data`: what is there, what is not and how to get it; bad input is one sentence."""

from __future__ import annotations

import hashlib

import pytest

from medil.data import fetch, manifest
from medil.data.transfer import Patience
from tests.web import part, running, status, truncated

CONTENT = b"some published bytes"
MANIFEST = """name = "made"
title = "made files"
version = "1"
licence = "CC0 (public domain)"
terms = "None."
citation = "nobody"
modality = "CT"
access = "open"
page = "https://example.org/made"
"""
FILE = """
[[file]]
path = "made/{name}"
url = "{address}/{name}"
plain_http = true
sha256 = "{sha256}"
bytes = 20
subject = "{name}"
split = "test"
"""


@pytest.fixture
def web(tmp_path, monkeypatch):
    """A checkout of two data sets, one of two files on a local server; an empty cache."""
    folder = tmp_path / "checkout" / "data_manifests"
    folder.mkdir(parents=True)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("MEDIL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MEDIL_DATA_MIRROR", raising=False)
    monkeypatch.setattr(manifest, "repository_folder", lambda: folder.parent)
    monkeypatch.setattr(fetch, "USUAL", Patience(attempts=2, backoff_s=0.001, timeout_s=1))
    digest = hashlib.sha256(CONTENT).hexdigest()
    with running() as server:
        files = [FILE.format(name=n, address=server.address, sha256=digest) for n in ("a", "b")]
        (folder / "made.toml").write_text(MANIFEST + "".join(files))
        asked = 'how = "ask the authors"\n' + MANIFEST.replace('"made"', '"far"')
        (folder / "far.toml").write_text(asked.replace('"open"', '"agreement"'))
        for name in ("a", "b"):
            server.serve(f"/{name}", part(CONTENT))
        yield server


def files_in(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_the_table_counts_what_is_here(web, run_medil):
    _, before, _ = run_medil("data", "list")
    run_medil("data", "fetch", "made")
    code, after, _ = run_medil("data", "list")
    head, far, made = (line.split() for line in after.splitlines()[:3])
    assert code == 0 and head == ["name", "files", "here", "size", "access", "licence", "what"]
    assert far == ["far", "-", "-", "-", "agreement", "CC0", "made", "files"]
    assert made == ["made", "2", "2", "0.0", "MB", "open", "CC0", "made", "files"]
    assert before.splitlines()[2].split()[:3] == ["made", "2", "0"]


def test_fetching_says_the_licence_and_verifies(web, run_medil, tmp_path):
    code, out, _ = run_medil("data", "fetch", "made", "made", "--workers", 2)
    assert code == 0 and "licence CC0" in out and "Cite: nobody" in out
    assert out.endswith("2 files are here and hold the published bytes\n")
    assert files_in(tmp_path / "cache") == ["a", "b"] and len(web.requests) == 2
    code, out, _ = run_medil("data", "verify", "made")
    assert (code, out) == (0, "made: 2 of 2 files are here, 2 hold the published bytes\n")


def test_verify_names_a_spoilt_file(web, run_medil, tmp_path):
    run_medil("data", "fetch", "made")
    spoilt = tmp_path / "cache" / "made" / "b"
    spoilt.write_bytes(b"spoilt")
    for verb in ("verify", "fetch"):
        code, _, err = run_medil("data", verb, "made")
        assert code == 2 and str(spoilt) in err and err.count("\n") == 1
    assert len(web.requests) == 2


def test_a_failure_leaves_the_other_file_and_says_what_is_missing(web, run_medil, tmp_path):
    web.serve("/a", status(404))
    code, _, err = run_medil("data", "fetch", "made")
    assert code == 2 and "answered 404 (not found)" in err and "1 of 2 files are not here" in err
    assert err.count("\n") == 1 and files_in(tmp_path / "cache") == ["b"]


def test_without_a_network_there_is_one_sentence(web, run_medil, tmp_path):
    path = manifest.manifest_folder() / "made.toml"
    with running() as gone:
        path.write_text(path.read_text().replace(web.address, gone.address))
    code, _, err = run_medil("data", "fetch", "made")
    assert code == 2 and "MEDIL_DATA_MIRROR" in err and "2 of 2 files are not here" in err
    assert err.count("\n") == 1 and files_in(tmp_path / "cache") == []


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["fetch", "far"],
            "access: agreement; licence: CC0 (public domain)): ask the authors",
        ),
        (["fetch", "none"], "there is no data set 'none'; there are far, made."),
        (["verify", "none"], "there is no data set"),
        (["where", "none"], "there is no data set"),
        (["clean", "../x"], "there is no data set"),
        (["fetch"], "Missing argument"),
        (["fetch", "made", "--workers", "0"], "0 is not in the range"),
    ],
)
def test_bad_input_is_one_sentence(web, run_medil, arguments, sentence):
    code, _, err = run_medil("data", *arguments)
    assert code == 2 and sentence in err and web.requests == []


def test_a_faulty_manifest_is_one_sentence(web, run_medil):
    path = manifest.manifest_folder() / "made.toml"
    path.write_text(path.read_text().replace("made/a", "../a"))
    code, _, err = run_medil("data", "list")
    assert code == 2 and err.startswith("medil: made.toml, file 1 (../a): path is a relative path")


def test_where_names_folders_and_files(web, run_medil, tmp_path):
    _, out, _ = run_medil("data", "where")
    assert f"{tmp_path / 'cache'} (does not exist)" in out
    assert "MEDIL_DATA_MIRROR is not set" in out
    assert run_medil("data", "where", "made")[1] == ""
    run_medil("data", "fetch", "made")
    _, out, _ = run_medil("data", "where", "made")
    assert out.split() == [str(tmp_path / "cache" / "made" / name) for name in "ab"]


def test_ctrl_c_says_that_the_next_call_goes_on(web, run_medil, monkeypatch):
    def press(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(manifest, "fetch_all", press)
    code, _, err = run_medil("data", "fetch", "made")
    assert code == 130 and ".partial" in err and err.count("\n") == 1


def test_clean_removes_unfinished_downloads_and_named_data_sets_alone(
    web, run_medil, tmp_path, monkeypatch
):
    cache = tmp_path / "cache"
    run_medil("data", "fetch", "made")
    (cache / "made" / "b").unlink()
    (cache / "mine").write_text("not of a manifest")
    web.serve("/b", truncated(CONTENT, 5), status(404))
    run_medil("data", "fetch", "made")
    assert [name for name in files_in(cache) if name.endswith(".partial")]
    assert run_medil("data", "clean")[:2] == (0, "removed 2 files, 0.0 MB\n")
    assert files_in(cache) == ["a", "mine"]
    monkeypatch.setenv("MEDIL_DATA_MIRROR", str(tmp_path / "mirror"))
    (tmp_path / "mirror" / "made").mkdir(parents=True)
    (tmp_path / "mirror" / "made" / "a").write_bytes(CONTENT)
    assert run_medil("data", "clean", "made")[:2] == (0, "removed 1 files, 0.0 MB\n")
    assert files_in(cache) == ["mine"] and files_in(tmp_path / "mirror") == ["a"]
