"""`import medil` is enough for daily work, and imports nothing heavy."""

import doctest
import importlib
import subprocess
import sys

import pytest

import medil

HEAVY = {"torch", "numpy", "scipy", "nibabel"}
NEEDS_DATA = {"real_scan"}  # its example cannot run without the data
DAILY = {  # methods of a day's work
    "Grid": ("from_spacing", "index_to_ras", "ras_to_index", "resized", "with_spacing",
             "covering", "crop", "shifted", "rotated", "reoriented", "shares_extent", "overlaps"),
    "Latent": ("sample", "crop_mm", "save", "load"),
    "Volume": ("with_data",),
    "MedIL": ("encode", "field", "decode"),
}  # fmt: skip
METHODS = [f"{name}.{method}" for name, methods in DAILY.items() for method in methods]


@pytest.mark.parametrize("name", medil.__all__)
def test_a_public_name_resolves_and_is_listed(name):
    assert getattr(medil, name) is not None
    assert name in dir(medil)


@pytest.mark.parametrize("name, module", medil.PUBLIC.items())
def test_a_public_name_is_that_of_its_module(name, module):
    assert getattr(medil, name) is getattr(importlib.import_module(f"medil.{module}"), name)


def test_an_unknown_name_is_refused():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        medil.nothing  # noqa: B018


@pytest.mark.parametrize(
    "code", ["import medil", "from medil.cli import run; assert run(['--help']) == 0"]
)
def test_neither_the_import_nor_the_help_loads_anything_heavy(code):
    code += f"; import sys; print(*({HEAVY} & sys.modules.keys()))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[-1] == ""


def examples(thing: object) -> list[doctest.Example]:
    """The examples of a docstring."""
    return doctest.DocTestParser().get_examples(thing.__doc__ or "")


@pytest.mark.parametrize("name", [*medil.__all__, *METHODS])
def test_a_public_name_has_an_example_that_runs(name):
    name, _, method = name.partition(".")
    thing = getattr(medil, name)
    found = examples(getattr(thing, method) if method else thing)
    assert found, "its docstring needs an `Example:`, which `pytest` runs"
    assert name in NEEDS_DATA or not all(doctest.SKIP in e.options for e in found)


@pytest.mark.parametrize("method", ["on", "at", "slabs"])
def test_a_field_shows_how_it_is_read(method):
    assert examples(getattr(importlib.import_module("medil.model.field").Field, method))
