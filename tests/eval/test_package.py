"""What is built for others installs and runs where nothing of the project is."""

import subprocess

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


@pytest.mark.slow
def test_the_wheel_and_the_source_archive_install_and_run(tmp_path):
    packages = package.build(tmp_path)
    assert [path.name.rpartition(".")[2] for path in packages] == ["gz", "whl"]
    assert [finding for path in packages for finding in package.findings(path)] == []
