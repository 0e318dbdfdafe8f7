"""Downloaded notebooks run where the project is not: a wheel, an archive, an empty folder."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from eval.gates import elsewhere
from eval.gates.elsewhere import NOTEBOOKS, Elsewhere, findings, prepare, share_packages


def test_a_bare_environment_sees_every_package_but_this_project(tmp_path):
    packages, site = tmp_path / "from", tmp_path / "venv/lib/python3.12/site-packages"
    site.mkdir(parents=True)
    packages.mkdir()
    for name in ("torch", "medil_book-1.0.0.dist-info", "_medil_book.pth", "other.pth"):
        (packages / name).mkdir()
    share_packages(packages, tmp_path)
    assert [path.name for path in (tmp_path / "packages").iterdir()] == ["torch"]
    assert (site / "shared.pth").read_text().strip() == str(tmp_path / "packages")


def test_nothing_leads_back_to_the_checkout_or_to_an_index(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "here")
    monkeypatch.setenv("MEDIL_REPOSITORY_URL", "https://example.org")
    environment = Elsewhere(tmp_path).environment()
    assert "PYTHONPATH" not in environment and "MEDIL_REPOSITORY_URL" not in environment
    assert environment["PIP_NO_INDEX"] == "1"
    assert environment["MEDIL_DATA_MIRROR"] == str(tmp_path / "mirror")
    assert environment["PATH"].startswith(str(tmp_path / "venv/bin"))


def test_an_environment_that_has_the_project_proves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(Elsewhere, "python", Path(sys.executable))
    monkeypatch.setattr(elsewhere, "UNSET", ())
    (finding,) = findings(Elsewhere(tmp_path), NOTEBOOKS[:1])
    assert "nothing was tried" in finding


# With a bare environment in name alone


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A place whose Python says what `answers` says; it notes where it ran what."""
    (tmp_path / "pages").mkdir()
    called, answers = [], {"import medil": (1, "", "no medil")}

    def run(self, arguments, folder):
        called.append((arguments, folder))
        code, out, errors = next((a for k, a in answers.items() if k in arguments), (0, "t", ""))
        return subprocess.CompletedProcess(arguments, code, out, errors)

    monkeypatch.setattr(Elsewhere, "run", run)
    monkeypatch.setattr("eval.pages.plain.words_of", lambda *folders: {})
    monkeypatch.setattr("eval.pages.plain.plain", lambda page, words: page | {"plain": True})
    return SimpleNamespace(where=Elsewhere(tmp_path), called=called, answers=answers)


def test_each_page_runs_alone_in_an_empty_folder_as_it_is_downloaded(place, capsys):
    assert list(findings(place.where, NOTEBOOKS[:2])) == []
    ran = [(arguments, folder) for arguments, folder in place.called if "papermill" in arguments]
    assert [folder.name for _, folder in ran] == [path.stem for path in NOTEBOOKS[:2]]
    for arguments, folder in ran:
        assert [path.name for path in folder.iterdir()] == [arguments[2]]
        assert json.loads((folder / arguments[2]).read_text("utf-8"))["plain"]
    assert capsys.readouterr().out.count(" s, runs\n") == 2


def test_a_page_that_fails_and_a_package_that_changed_are_found(place, capsys, monkeypatch):
    place.answers["papermill"] = (1, "", "long\nKeyError: 'x'")
    versions = iter(["torch 1\n", "torch 2\n"])
    run = Elsewhere.run

    def changing(self, arguments, folder):
        if elsewhere.KEPT in arguments:
            return subprocess.CompletedProcess(arguments, 0, next(versions), "")
        return run(self, arguments, folder)

    monkeypatch.setattr(Elsewhere, "run", changing)
    page, packages = findings(place.where, NOTEBOOKS[:1])
    assert page == f"{NOTEBOOKS[0].stem}: long\nKeyError: 'x'"
    assert packages == "before: torch 1\nafter: torch 2\n"
    assert "KeyError" in capsys.readouterr().out


@pytest.mark.parametrize(("found", "code"), [([], 0), (["02: it fails"], 1)])
def test_the_command_runs_what_is_named_and_says_what_is_found(monkeypatch, capsys, found, code):
    wanted = []
    monkeypatch.setattr(elsewhere, "prepare", Elsewhere)
    monkeypatch.setattr(
        elsewhere, "findings", lambda place, notebooks: wanted.append(notebooks) or found
    )
    assert elsewhere.main(["2"]) == elsewhere.main([]) == code
    assert [path.name[:2] for path in wanted[0]] == ["02"]
    assert wanted[1] == NOTEBOOKS
    passed = [f"{n} notebooks run elsewhere" for n in (1, len(NOTEBOOKS))]
    assert capsys.readouterr().out.splitlines() == (found * 2 or passed)


def test_a_computer_without_the_project_gets_a_wheel_and_an_archive(tmp_path, monkeypatch):
    called = []

    def run(command, **options):
        called.append(command)
        return subprocess.CompletedProcess(command, 0, "abc123\n", "")

    monkeypatch.setattr(elsewhere.subprocess, "run", run)
    monkeypatch.setattr(elsewhere.venv, "create", lambda folder, symlinks: None)
    monkeypatch.setattr(elsewhere, "share_packages", lambda packages, folder: None)
    place = prepare(tmp_path)
    build, stash, archive = called
    assert build[-1] == str(place.folder / "dist") and "hatchling" in build
    assert stash[3:] == ["stash", "create"]  # what was changed goes into the archive too
    assert archive[-1] == "abc123" and Path(archive[-2]).parent == place.folder / "mirror"
    assert all((tmp_path / name).is_dir() for name in ("dist", "mirror", "pages"))


@pytest.mark.notebook
@pytest.mark.slow
def test_two_pages_run_elsewhere(tmp_path):
    chosen = [path for path in NOTEBOOKS if path.name[:2] in ("00", "02")]
    assert list(findings(prepare(tmp_path), chosen)) == []
