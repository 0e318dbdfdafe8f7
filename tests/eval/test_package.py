"""What is built for others installs and runs where nothing of the project is."""

import subprocess
import tarfile
from pathlib import Path

import pytest

from eval.gates import package
from eval.gates.elsewhere import Elsewhere


@pytest.fixture
def no_environment(monkeypatch, tmp_path):
    """A bare environment in name alone; it notes what it is asked to run."""
    asked = []

    def run(place, arguments, folder):
        asked.append(arguments)
        return subprocess.CompletedProcess(arguments, 0, "", "")

    monkeypatch.setattr(package, "bare", Elsewhere)
    monkeypatch.setattr(Elsewhere, "run", run)
    return asked


def test_a_command_that_ends_otherwise_is_found(no_environment, tmp_path):
    wheel = tmp_path / "medil.whl"
    wheel.write_bytes(b"")
    found = list(package.findings(wheel))
    wrong = [command for command, code in package.TRIES if code != 0]
    assert [f.split(":")[1].strip() for f in found] == [f"medil {command}" for command in wrong]
    assert len(no_environment) == 1 + len(package.TRIES)


def test_a_wheel_that_is_too_large_is_found(no_environment, tmp_path, monkeypatch):
    monkeypatch.setattr(package, "MOST_BYTES", 3)
    wheel = tmp_path / "medil.whl"
    wheel.write_bytes(b"1234")
    assert next(package.findings(wheel)) == "medil.whl has 4 bytes, above 3"


def test_both_files_are_built_from_the_last_commit(tmp_path, monkeypatch):
    """The commit is an archive with one file; what is built lies beside it."""

    def git(*arguments):
        assert arguments[0] == "archive" and arguments[-1] == "HEAD"
        (tmp_path / "pyproject.toml").write_text("[project]")
        with tarfile.open(arguments[2], "w") as archive:
            archive.add(tmp_path / "pyproject.toml", "pyproject.toml")
        return ""

    def run(command, cwd, **options):
        assert (Path(cwd) / "pyproject.toml").read_text() == "[project]"
        for name in ("medil.tar.gz", "medil.whl"):
            (Path(command[-1]) / name).write_text(name)

    out = tmp_path / "out"
    out.mkdir()
    monkeypatch.setattr(package, "git", git)
    monkeypatch.setattr(package.subprocess, "run", run)
    assert [path.name for path in package.build(out)] == ["medil.whl", "medil.tar.gz"]


@pytest.mark.parametrize(("found", "code"), [([], 0), (["it fails"], 1)])
def test_files_are_kept_where_nothing_is_found(tmp_path, monkeypatch, capsys, found, code):
    def build(folder):
        (folder / "medil.whl").write_text("wheel")
        return [folder / "medil.whl"]

    monkeypatch.setattr(package, "build", build)
    monkeypatch.setattr(package, "findings", lambda path: found)
    assert package.main(["--keep", str(tmp_path / "dist")]) == code
    assert (tmp_path / "dist/medil.whl").exists() is not bool(found)
    assert capsys.readouterr().out == ("it fails\n" if found else "medil.whl install and run\n")


def test_a_file_that_cannot_be_installed_is_tried_no_further(no_environment, tmp_path, monkeypatch):
    def run(place, arguments, folder):
        no_environment.append(arguments)
        return subprocess.CompletedProcess(arguments, 1, "", "no numpy")

    monkeypatch.setattr(Elsewhere, "run", run)
    (tmp_path / "medil.whl").write_bytes(b"")
    (finding,) = package.findings(tmp_path / "medil.whl")
    assert finding == "medil.whl cannot be installed: no numpy" and len(no_environment) == 1


@pytest.mark.slow
def test_the_wheel_and_the_source_archive_install_and_run(tmp_path):
    packages = package.build(tmp_path)
    assert [path.name.rpartition(".")[2] for path in packages] == ["gz", "whl"]
    assert [finding for path in packages for finding in package.findings(path)] == []
