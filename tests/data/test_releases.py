"""`medil.data.releases`: the weights that a manifest names, wherever they lie, or nothing."""

from __future__ import annotations

import hashlib
import shutil
from io import BytesIO
from pathlib import Path

import pytest
import requests
from urllib3 import HTTPResponse

import medil
from medil.data import releases
from medil.data.releases import RELEASES, release_path
from medil.errors import InputError
from medil.model.weights import load_release, release_config

NAMES = [
    "tiny", "base", "tiny-ldm", "anatomies", "tiny-segmenter", "tiny-appearance", "chest-tiny",
]  # fmt: skip


@pytest.fixture
def installed(tmp_path, monkeypatch) -> Path:
    """A package without weights, as a wheel has it; an empty cache, no mirror, no address."""
    folder = tmp_path / "installed"
    folder.mkdir()
    shutil.copy(RELEASES / "manifest.toml", folder)
    monkeypatch.setattr(releases, "RELEASES", folder)
    monkeypatch.setattr(releases, "repository_folder", lambda: None)
    monkeypatch.setenv("MEDIL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MEDIL_DATA_MIRROR", raising=False)
    monkeypatch.delenv("MEDIL_REPOSITORY_URL", raising=False)
    return folder


def serve(monkeypatch, content: bytes) -> list[str]:
    """Stand in for the network; gives back the requested addresses."""
    requested: list[str] = []

    def get(url, **_):
        requested.append(url)
        answer = requests.Response()
        answer.status_code = 200
        answer.headers["Content-Length"] = str(len(content))
        answer.raw = HTTPResponse(BytesIO(content), preload_content=False)
        return answer

    monkeypatch.setattr(requests, "get", get)
    return requested


@pytest.mark.parametrize("name", NAMES)
def test_the_manifest_holds_the_hash_and_size_of_every_file(name):
    (path,) = (p for p in RELEASES.iterdir() if p.name.startswith(f"{name}.") and p.suffix != ".md")
    line = f'sha256 = "{hashlib.sha256(path.read_bytes()).hexdigest()}"'
    assert line in (RELEASES / "manifest.toml").read_text("utf-8"), f"{path.name}: {line}"
    assert releases.releases()[name].bytes == path.stat().st_size
    assert release_path(name) == path


def test_the_manifest_names_every_file_and_no_other():
    assert list(releases.releases()) == NAMES
    files = [path for path in RELEASES.iterdir() if path.suffix not in (".md", ".toml")]
    assert {path.name.split(".")[0] for path in files} == set(NAMES)


@pytest.mark.parametrize("load", [load_release, release_config, release_path])
def test_missing_weights_without_an_address_say_what_to_set(installed, load):
    with pytest.raises(InputError, match=r"'base'; set MEDIL_DATA_MIRROR .*MEDIL_REPOSITORY_URL"):
        load("base")


@pytest.mark.parametrize("inside", [".", "releases"])
def test_a_mirror_serves_the_weights(installed, tmp_path, monkeypatch, inside):
    copy = tmp_path / "mirror" / inside / "base.safetensors"
    copy.parent.mkdir(parents=True)
    shutil.copy(RELEASES / copy.name, copy)
    monkeypatch.setenv("MEDIL_DATA_MIRROR", str(tmp_path / "mirror"))
    assert release_path("base") == copy
    assert load_release("base").config.latent_channels > 0


@pytest.mark.parametrize("where", ["mirror", "cache/releases", "installed"])
def test_other_bytes_than_the_manifest_s_are_refused(installed, tmp_path, monkeypatch, where):
    monkeypatch.setenv("MEDIL_DATA_MIRROR", str(tmp_path / "mirror"))
    spoilt = tmp_path / where / "base.safetensors"
    spoilt.parent.mkdir(parents=True, exist_ok=True)
    spoilt.write_bytes(b"spoilt")
    with pytest.raises(InputError, match="does not hold the published bytes"):
        release_path("base")


def test_weights_are_downloaded_once_from_the_address_of_this_version(installed, monkeypatch):
    content = (RELEASES / "tiny.safetensors").read_bytes()
    requested = serve(monkeypatch, content)
    monkeypatch.setenv("MEDIL_REPOSITORY_URL", "https://example.org/book/")
    assert release_path("tiny").read_bytes() == content
    assert release_path("tiny").is_file()
    file = "medil/releases/tiny.safetensors"
    assert requested == [f"https://example.org/book/raw/v{medil.__version__}/{file}"]


def test_a_download_of_other_bytes_is_not_kept(installed, tmp_path, monkeypatch):
    serve(monkeypatch, b"not found")
    monkeypatch.setenv("MEDIL_REPOSITORY_URL", "https://example.org/book")
    with pytest.raises(InputError, match="other bytes"):
        release_path("base")
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []


def test_an_address_that_is_none_is_one_sentence(installed, monkeypatch):
    monkeypatch.setenv("MEDIL_REPOSITORY_URL", "example.org/book")
    with pytest.raises(InputError, match=r"example\.org/book.* is not https"):
        release_path("base")


def test_a_release_that_does_not_exist_is_refused_with_those_that_do():
    with pytest.raises(InputError, match=r"trained yet; there is: tiny, base, chest-tiny\."):
        release_path("paper")
    with pytest.raises(InputError, match=r"there is: tiny-ldm\."):
        release_path("paper-ldm")
