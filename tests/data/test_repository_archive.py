"""The rest of the repository of an installed package comes from an archive, whole or not at all."""

import sys
import tarfile

import pytest

import medil
from medil.data import folders, repository
from medil.data.releases import release_path
from medil.errors import InputError


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A package without a checkout, an empty cache, a mirror, no address; the mirror."""
    site = tmp_path / "site-packages/medil/data/folders.py"
    monkeypatch.setattr(folders, "__file__", str(site))
    monkeypatch.setattr(sys, "path", list(sys.path))
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    monkeypatch.setenv("MEDIL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MEDIL_DATA_MIRROR", str(mirror))
    monkeypatch.delenv("MEDIL_REPOSITORY_URL", raising=False)
    return mirror


def pack(mirror, tmp_path, *files: str):
    """An archive of the repository as a host of repositories makes it: one folder at its top."""
    for name in files:
        path = tmp_path / "made/medil-0" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("rows")
    with tarfile.open(mirror / f"medil-book-{medil.__version__}.tar.gz", "w:gz") as packed:
        packed.add(tmp_path / "made/medil-0", "medil-0")


def test_a_checkout_is_used_as_it_is():
    assert (repository.use_repository() / "eval/rows.py").is_file()
    assert repository.use_repository() == folders.repository_folder()


def test_the_archive_is_unpacked_once_and_found_again(installed, tmp_path):
    pack(installed, tmp_path, "eval/rows.py", "medil/releases/x.safetensors", "data_manifests/a")
    folder = repository.use_repository()
    assert folder == tmp_path / f"cache/medil-book-{medil.__version__}"
    assert str(folder) in sys.path
    (installed / f"medil-book-{medil.__version__}.tar.gz").unlink()
    assert repository.use_repository() == folder
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_an_installed_package_finds_larger_weights_in_the_archive(installed, tmp_path, monkeypatch):
    pack(installed, tmp_path, "eval/rows.py", "medil/releases/base.safetensors")
    folder = repository.use_repository()
    monkeypatch.setattr("medil.data.releases.RELEASES", tmp_path)
    monkeypatch.setattr("medil.data.releases.releases", lambda: {"base": a_release()})
    assert release_path("base") == folder / "medil/releases/base.safetensors"


def a_release():
    return repository.PublishedFile("releases/base.safetensors", "", "", 0, "Apache-2.0")


@pytest.mark.parametrize("files", [("else/where",), ()])
def test_an_archive_of_something_else_is_refused_and_leaves_nothing(installed, tmp_path, files):
    pack(installed, tmp_path, *files) if files else (
        installed / f"medil-book-{medil.__version__}.tar.gz"
    ).write_text("no archive")
    with pytest.raises(InputError, match=r"holds no copy|cannot be unpacked"):
        repository.use_repository()
    assert list((tmp_path / "cache").iterdir()) == []


def test_without_an_archive_and_an_address_one_sentence_says_what_to_do(installed):
    with pytest.raises(InputError, match="no public address yet; put medil-book-"):
        repository.use_repository()


def test_the_archive_is_that_of_the_tag_of_this_version(installed, tmp_path, monkeypatch):
    asked = []

    def download(file, target):
        asked.append(file.url)
        target.parent.mkdir(parents=True, exist_ok=True)
        pack(target.parent, tmp_path, "eval/rows.py")
        return target

    monkeypatch.setattr(repository, "download", download)
    monkeypatch.setenv("MEDIL_REPOSITORY_URL", "https://example.org/book/")
    assert repository.use_repository().is_dir()
    assert asked == [f"https://example.org/book/archive/refs/tags/v{medil.__version__}.tar.gz"]
