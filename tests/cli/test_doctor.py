"""`medil doctor`: what it says of a machine that works, and of one that does not."""

import re
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from medil.cli import doctor
from medil.errors import InputError

pytest.importorskip("click", reason="click (extra cli) is not installed")
EXTRAS = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))[
    "project"
]["optional-dependencies"]


@pytest.fixture
def released(monkeypatch, spline_model):
    monkeypatch.setattr("medil.model.weights.load_release", lambda name: spline_model)


def plain(name: str) -> str:
    return re.split(r"[<>=\[]", name)[0].replace("_", "-").lower()


def test_a_working_machine_is_described(run_medil, released, monkeypatch, tmp_path):
    monkeypatch.setenv("MEDIL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MEDIL_DATA_MIRROR", str(tmp_path / "mirror"))
    code, out, err = run_medil("doctor")
    facts = dict(line.split(maxsplit=1) for line in out.splitlines())
    names = "medil python packages device threads precision memory cache mirror core"
    assert code == 0 and not err and set(names.split()) <= set(facts)
    assert "torch" in facts["packages"] and "GB free of" in facts["memory"]
    assert str(tmp_path / "cache") in facts["cache"] and facts["mirror"].endswith("is not there")
    assert facts["core"].startswith("works: ") and not (tmp_path / "cache").exists()


def test_a_missing_extra_says_what_to_type(run_medil, released, monkeypatch):
    monkeypatch.setattr(doctor, "find_spec", lambda name: None if name == "zarr" else name)
    _, out, _ = run_medil("doctor")
    (line,) = [line for line in out.splitlines() if line.startswith("optional")]
    assert line.endswith("medil store needs zarr: pip install 'medil-book[store]'")


def test_a_core_that_does_not_work_is_one_sentence_and_2(run_medil, monkeypatch):
    def refuse(name):
        raise InputError("there are no weights.")

    monkeypatch.setattr("medil.model.weights.load_release", refuse)
    code, out, err = run_medil("doctor")
    assert code == 2 and "core" not in out
    assert err == (
        "medil: the core does not work here (InputError: there are no weights); "
        "install medil again.\n"
    )


def test_it_knows_every_extra_and_what_each_installs():
    assert set(doctor.EXTRAS) == set(EXTRAS) - {"cli", "dev", "all"}
    known = packages_distributions()
    for extra, (_, modules) in doctor.EXTRAS.items():
        brings = {plain(name) for name in EXTRAS[extra]}
        brings |= {"distributed"} if "medil-book" in brings else set()
        for module in modules:
            assert {plain(name) for name in known.get(module, brings)} & brings, module
