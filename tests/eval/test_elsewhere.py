"""Downloaded notebooks run where the project is not: a wheel, an archive, an empty folder."""

import sys
from pathlib import Path

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


@pytest.mark.notebook
@pytest.mark.slow
def test_two_pages_run_elsewhere(tmp_path):
    chosen = [path for path in NOTEBOOKS if path.name[:2] in ("00", "02")]
    assert list(findings(prepare(tmp_path), chosen)) == []
