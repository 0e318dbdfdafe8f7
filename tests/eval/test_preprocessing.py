"""The experiment on preparing scans: promised rows, known faults, sentences that follow."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from eval.preprocessing import EXPERIMENT, measure
from eval.rows import SCHEMA, Provenance
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
    return SimpleNamespace(profile=profile)


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
