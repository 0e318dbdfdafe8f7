"""Drift in stage two: what a run keeps on the way, what is asked of it, what the verdict says."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from eval.rows import Provenance
from eval.stage_drift import EXPERIMENT, measure, training
from eval.subjects import Scan, Subject
from medil.errors import InputError
from medil.grid import Grid
from medil.model.weights import load_model
from medil.training.patches import prepare_scan
from medil.volume import Volume


def volume(side=40):
    """Smooth noise in air."""
    rng = np.random.default_rng(0)
    data = torch.zeros(side, side, side)
    data[8:-8, 8:-8, 8:-8] = torch.from_numpy(rng.uniform(0.4, 1.0, (side - 16,) * 3)).float()
    return Volume(data, Grid.from_spacing(data.shape, 2.4))


def test_every_way_shares_stage_one():
    ones = {training.config_of(way, 1).to_json() for way in training.WAYS}
    twos = {training.config_of(way, 2).to_json() for way in training.WAYS}
    assert len(ones) == 1 and len(twos) == len(training.WAYS)


def test_small_patches_hold_as_many_voxels_a_step():
    sizes = {way: batch * side**3 for way, (side, batch, _) in training.WAYS.items()}
    assert len(set(sizes.values())) == 1


def test_weights_are_kept_on_the_way(tmp_path):
    paths = {n: tmp_path / f"{n}.safetensors" for n in training.kept_steps(2)}
    training.train("patches", 0, 2, [prepare_scan(volume())], paths)
    first, last = (load_model(paths[n]) for n in (1, 2))
    assert first.weights_id != last.weights_id
    assert last.facts["step"] == 2


def test_a_release_is_refused():
    with pytest.raises(InputError, match="models of its own"):
        measure.tasks(SimpleNamespace(release="base", profile="quick"), Provenance.now("quick"))


def test_rows_are_those_that_were_promised(tmp_path, monkeypatch):
    paths = {1: tmp_path / "1.safetensors"}
    training.train("patches", 0, 1, [prepare_scan(volume())], paths)
    monkeypatch.setattr(measure, "snapshots", lambda *_: paths)
    monkeypatch.setattr(measure, "WAYS", {"patches": training.WAYS["patches"]})
    scan = Scan(volume(), (volume().data > 0).numpy())
    subject = Subject("ball", "a", (), lambda: scan)
    monkeypatch.setattr(measure, "heads", lambda profile: [subject])
    provenance = Provenance.now("quick")
    asked = SimpleNamespace(release="tiny", profile="quick")
    (task,) = measure.tasks(asked, provenance)
    made = task.measure()
    assert {row.identity for row in made} == task.wanted and len(made) == len(measure.QUESTIONS)
    assert all(5 < row.value < 60 for row in made)


def recorded(after_patches, after_mixed):
    """Rows of two heads and seeds: 20 dB at first, then as given; small patches lose 1 dB."""
    ends = {"patches": after_patches, "patches and whole volumes": after_mixed}
    ends["small patches"] = after_patches - 1
    lines = [
        {"arm": way, "subject": head, "seed": seed, "step": step, "asked": asked,
         "value": 20.0 if step == 10 else end}
        for way, end in ends.items() for head in "ab" for seed in ("seed 0", "seed 1")
        for step in (10, 20) for asked in measure.QUESTIONS
    ]  # fmt: skip
    return pd.DataFrame(lines)


@pytest.mark.parametrize("after, told", [(18.0, "forgets"), (21.0, "does not forget")])
def test_the_verdict_says_what_is_forgotten(after, told):
    rows = recorded(after, 21.5)
    sentences = EXPERIMENT.verdict(rows)
    assert f"alone {told} whole volumes" in sentences
    assert f"{21.5 - after:+.2f}" in sentences and "-1.00" in sentences
    table = EXPERIMENT.tables(rows)["stage_drift"]
    assert len(table) == 9 and table["20 steps (dB)"].iloc[0] == after
