"""The budget of a job: how it is read, what is free, and what is chosen to fit into it."""

from __future__ import annotations

import resource
import subprocess
import sys
from itertools import pairwise
from types import SimpleNamespace

import pytest

from medil.config import preset
from medil.errors import InputError
from medil.grid import Grid
from medil.model.autoencoder import MedIL
from medil.model.budget import planes_and_rows, planes_to_encode
from medil.system.memory import choose, free_memory_bytes, parse_size


@pytest.fixture(scope="module")
def model():
    return MedIL(preset("test").model).eval()


@pytest.mark.parametrize(
    ("text", "n_bytes"),
    [("2GB", 2e9), ("500mb", 5e8), ("1.5GiB", 1.5 * 2**30), ("64 k", 64e3), ("7", 7)],
)
def test_sizes_are_read(text, n_bytes):
    assert parse_size(text) == n_bytes


@pytest.mark.parametrize("text", ["", "GB", "2 apples", "-1GB", "0", "1e3MB", "nan", "2GBit"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(InputError, match="not a memory size"):
        parse_size(text)


def test_the_first_candidate_that_fits_is_chosen_or_the_need_is_named(monkeypatch):
    monkeypatch.setattr("medil.system.memory.resident_bytes", lambda: 300e6)
    monkeypatch.setattr("medil.system.memory.free_memory_bytes", lambda: 400e6)

    def chosen(memory_bytes):
        return choose([8, 4, 2, 1], lambda n: n * 100e6, memory_bytes, "this output")

    assert [chosen(b) for b in (2e9, 1.1e9, 1.0e9, 700e6, 400e6)] == [8, 8, 4, 4, 1]
    assert chosen(None) == 2  # half of what is free, beside what is held
    with pytest.raises(InputError, match=r"at least 0.40 GB .* is 0.39 GB.*memory_bytes"):
        chosen(390_000_000)


def test_less_memory_makes_thinner_pieces_and_little_is_refused(model, monkeypatch):
    monkeypatch.setattr("medil.system.memory.resident_bytes", lambda: 0)
    cells = Grid.from_spacing((45, 54, 45), 4.0)
    target = cells.with_spacing(0.5)
    found = [planes_and_rows(model, cells, target, 2, b) for b in (2e9, 3e8, 2.7e8)]
    assert all(a[0] >= b[0] and a[1] >= b[1] for a, b in pairwise(found))
    assert found[0] > found[-1] and min(found[-1]) >= 1
    native = cells.with_spacing(1.0)
    planes = [planes_to_encode(model, native, cells, b) for b in (2e9, 3.5e8, 2.95e8)]
    assert planes == sorted(planes, reverse=True) and planes[0] > planes[-1]
    for plan in (lambda: planes_and_rows(model, cells, target, 2, 10**7),
                 lambda: planes_to_encode(model, native, cells, 10**7)):  # fmt: skip
        with pytest.raises(InputError, match=r"needs at least .* GB of memory"):
            plan()


def test_a_container_s_limit_counts_as_what_is_free(tmp_path, monkeypatch):
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=2_048_000_000))
    for name, text in [("max", "900000000"), ("current", "600000000")]:
        (tmp_path / f"memory.{name}").write_text(text + "\n")
    (tmp_path / "memory.stat").write_text("anon 500000000\ninactive_file 100000000\n")
    assert free_memory_bytes(tmp_path) == 400_000_000
    (tmp_path / "memory.max").write_text("max\n")
    assert free_memory_bytes(tmp_path) == 2_048_000_000


def test_too_few_addresses_are_refused_before_a_library_starts():
    def few() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (700_000 * 1024, resource.RLIM_INFINITY))

    command = [sys.executable, "-m", "medil", "info", "scan.nii.gz"]
    ran = subprocess.run(command, preexec_fn=few, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 2 and ran.stderr.count("\n") == 1
    assert ran.stderr.startswith("medil: medil needs at least ")
    assert "ulimit -v allows 0.72 GB; raise it with: ulimit -v " in ran.stderr
