"""The experiment on preparing scans: promised rows, known faults, sentences that follow."""

from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch

from eval.preprocessing import EXPERIMENT, measure, scale
from eval.rows import SCHEMA, Provenance
from medil.cli import run
from medil.errors import InputError
from medil.grid import Grid
from medil.volume import Volume

BRAIN = SimpleNamespace(kind="brain", sha256="ab" * 32, name="brain")
HEAD = SimpleNamespace(kind="head", sha256="cd" * 32, name="head")


def scan():
    grid = Grid.from_spacing((20, 24, 20), 8.0)
    data = torch.zeros(grid.shape)
    data[4:16, 4:20, 4:16] = 100.0
    return Volume(data, grid)


@pytest.fixture
def made_up(monkeypatch):
    """Two scans; an alignment that undoes a grid, a field and masks that are exact."""
    monkeypatch.setattr(measure, "held_out_scans", lambda: [BRAIN, HEAD])
    monkeypatch.setattr(measure, "name_of", lambda entry: entry.name)
    monkeypatch.setattr(measure, "fetch", lambda entry: entry)
    monkeypatch.setattr(measure, "load", lambda path: scan())
    monkeypatch.setattr(measure, "brain_mask", lambda volume, method: volume.data > 0)
    upright = scan().grid.affine_vox2ras

    def found(volume, mask):
        return upright @ np.linalg.inv(volume.grid.affine_vox2ras)

    monkeypatch.setattr(measure, "alignment", found)
    monkeypatch.setattr(measure, "bias_field", lambda volume, mask: volume.data.clamp(min=1) / 100)


def asked(profile="gpu"):
    return SimpleNamespace(profile=profile, parts=["known"])


def test_every_scan_gives_the_rows_that_it_promised(made_up):
    made = measure.tasks(asked(), Provenance.now("gpu"))
    assert [task.name for task in made] == ["brain", "head"]
    by_name = {}
    for task in made:
        found = task.measure()
        assert {row.identity for row in found} == task.wanted
        by_name[task.name] = {(row.condition, row.metric): row.value for row in found}
    own = by_name["brain"]
    assert own["known tilt 0", "rotation_error_deg"] == pytest.approx(0, abs=1e-4)
    assert own["known tilt 2", "shift_error_mm"] == pytest.approx(0, abs=1e-6)
    assert 5 <= own["known tilt 1", "tilt_deg"] <= measure.MOST_TURN_DEG
    assert own["known field 0", "field_after"] == pytest.approx(0, abs=1e-3)
    assert own["known field 0", "field_before"] > 0.02
    assert own["known mask 0", "dice"] == 1
    assert not any(condition.startswith("known mask") for condition, _ in by_name["head"])


def test_without_scans_there_is_one_sentence(monkeypatch):
    monkeypatch.setattr(measure, "held_out_scans", lambda: [])
    with pytest.raises(InputError, match="MEDIL_DATA_MIRROR"):
        measure.tasks(asked(), Provenance.now("gpu"))


def test_a_missed_tilt_is_counted(monkeypatch):
    found = []
    for k, error in enumerate((0.1, 0.3, 5.0)):
        for metric, value in (("rotation_error_deg", error), ("shift_error_mm", 0.5)):
            found.append(dict.fromkeys(SCHEMA, "x") | {
                "experiment": "preprocessing", "condition": f"known tilt {k}", "metric": metric,
                "value": value, "subject": "a", "profile": "gpu",
                "recorded_at": pd.Timestamp("2026-01-01", tz="UTC"),
            })  # fmt: skip
    frame = EXPERIMENT.prepare(pd.DataFrame(found))
    assert EXPERIMENT.verdict(frame).startswith("2 of 3 known tilts")
    table = EXPERIMENT.tables(frame)["preprocessing"]
    assert table.iloc[0]["Mean [lowest, highest]"] == "1.80 [0.10, 5.00]"
    assert table.iloc[0]["n"] == "1 scans, 3 draws"


def recorded(arm, condition, values):
    return [
        dict.fromkeys(SCHEMA, "x") | {
            "experiment": "preprocessing", "arm": arm, "condition": condition, "metric": metric,
            "value": float(value), "recorded_at": pd.Timestamp("2026-01-01", tz="UTC"),
        }
        for metric, value in values.items()
    ]  # fmt: skip


@pytest.fixture
def two_brains(tmp_path, monkeypatch):
    """Two small stripped scans; the command runs in this process."""
    found = []
    for k, spacing_mm in enumerate((1.0, 2.0)):
        data = np.zeros((24, 24, 24), np.int16)
        data[4:20, 4:20, 4:20] = 100
        image = nib.Nifti1Image(data, np.diag([spacing_mm, spacing_mm, spacing_mm, 1]))
        image.header["descrip"] = b"as it was"
        nib.save(image, tmp_path / f"brain{k}.nii.gz")
        found.append(SimpleNamespace(sha256=f"{k}", path=tmp_path / f"brain{k}.nii.gz"))

    def run_job(name, threads, *, arguments):
        assert name == "command" and run(arguments) == 0
        return {"verb_s": 2.0, "peak_rss_mb": 300.0}

    monkeypatch.setattr(scale, "held_out_brains", lambda: found)
    monkeypatch.setattr(scale, "fetch", lambda entry: entry.path)
    monkeypatch.setattr(scale, "run_job", run_job)
    return found


def test_simulated_scans_keep_headers_and_give_the_rows_that_were_promised(
    two_brains, monkeypatch, capsys
):
    monkeypatch.setattr(scale, "COUNTS", {"gpu": (2, 5)})
    (task,) = scale.of_many("gpu", Provenance.now("gpu"))
    found = task.measure()
    assert {row.identity for row in found} == task.wanted
    values = {(row.condition, row.metric): row.value for row in found}
    assert values["many scans 5", "entries"] == 5 and values["many scans 2", "peak_ratio"] == 1
    assert values["many scans 5", "scans_per_minute"] == 150
    assert "5 prepared scans" in capsys.readouterr().out


def test_scans_are_simulated_under_their_own_headers(two_brains, tmp_path):
    small = scale.simulated(two_brains)
    assert [image.shape for image in small] == [(3, 3, 3), (6, 6, 6)]
    scale.write_scans(tmp_path, small, 3)
    first, second, third = (nib.load(tmp_path / f"sub-000{k}_T1w.nii.gz") for k in range(3))
    assert second.header["descrip"] == b"as it was" and second.header.get_zooms() == (8, 8, 8)
    assert first.shape == third.shape
    assert not np.array_equal(first.get_fdata(), third.get_fdata())
    assert np.array_equal(first.get_fdata() == 0, third.get_fdata() == 0)


def test_what_thousands_cost_and_the_real_rate_are_sentences():
    many = {"scans_per_minute": 700, "cpu_s": 9, "peak_ratio": 1, "again_s": 3,
            "listing_s": 0.1, "entries": 370, "peak_rss_mb": 280}  # fmt: skip
    most = many | {"cpu_s": 37, "peak_ratio": 1.08, "again_s": 7, "entries": 3700}
    frame = EXPERIMENT.prepare(
        pd.DataFrame(
            recorded(scale.MANY, "many scans 3700", most)
            + recorded(scale.MANY, "many scans 370", many)
            + recorded(scale.RATE, "real steps 2", {"scans_per_minute": 1.5, "scans": 6})
        )
    )
    first, second = EXPERIMENT.verdict(frame).splitlines()
    assert first.startswith("3,700 simulated scans") and "1.08 times that with 370" in first
    assert "take one process 10 ms of CPU time each (24 ms with 370" in first
    assert "1.5 raw heads a minute" in second and "n = 6" in second
    table = EXPERIMENT.tables(frame)["preprocessing_many"]
    assert list(table["Scans"]) == ["370", "3,700"]
    assert list(table["Entries of the page"]) == ["370", "3,700"]
