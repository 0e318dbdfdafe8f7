"""`import medil` is enough for daily work, and imports nothing heavy."""

import importlib
import subprocess
import sys

import pytest

import medil

HEAVY = {"torch", "numpy", "scipy", "nibabel"}


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
