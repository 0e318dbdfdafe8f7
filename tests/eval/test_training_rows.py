"""Training curves: few points, true rates, and one curve for each set of weights."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from eval import rows, rows_file
from eval.training import EXPERIMENT
from eval.training import measure as training
from medil.config import preset
from medil.errors import InputError
from medil.model.rivals import build
from medil.model.weights import save_weights

EVERY, SECONDS, VOXELS = 5, 0.5, 1000  # steps between lines; a step's time and voxels


def line(step: int) -> dict:
    """What a run logs: its loss is 1 / step, its PSNR the number of the step in dB."""
    return {
        "step": step, "elapsed_s": SECONDS * step, "voxels": VOXELS * step, "loss": 1 / step,
        "psnr_db": float(step), "gain_db": 2.0, "share": step / 2000, "learning_rate": 1e-4,
    }  # fmt: skip


@pytest.fixture
def run(tmp_path):
    """A folder with a log of 2000 steps and untrained weights."""
    folder = tmp_path / "run"
    folder.mkdir()
    lines = [json.dumps(line(step)) for step in range(1, 2001, EVERY)]
    (folder / "log.jsonl").write_text("\n".join([*lines, '{"step": 2001, "elap']))
    write_weights(folder, seed=0)
    return folder


def write_weights(folder, seed: int) -> None:
    torch.manual_seed(seed)
    config = preset("test")
    facts = {"seed": 3, "commit": "abc1234+", "calls": [{"device": "some CPU"}]}
    save_weights(build(config.model), config, folder / "weights.safetensors", facts, force=True)


def test_a_log_becomes_few_points_whose_rates_are_true(run):
    log = training.read_log(run / "log.jsonl")
    points = training.thinned(log)
    assert len(log) == 400 and len(points) == training.MOST_POINTS
    steps = [p.step for p in points]
    assert steps == sorted(set(steps)) and steps[-1] == 1996
    for point in points:
        assert point.values["voxels_per_s"] == pytest.approx(VOXELS / SECONDS)
        assert point.values["elapsed"] == pytest.approx(SECONDS * point.step / 60)
        assert point.values["gain"] == 2.0
    # A stretch's mean: of 3 or 4 lines, the last of which names it.
    behind = np.array([p.step - p.values["psnr"] for p in points])
    assert set(np.round(behind, 6)) == {EVERY, 1.5 * EVERY}
    weights = np.where(behind == EVERY, 3, 4)
    mean = np.average([p.values["loss"] for p in points], weights=weights)
    assert mean == pytest.approx(log["loss"].mean())


def test_a_short_log_keeps_every_line(run):
    points = training.thinned(training.read_log(run / "log.jsonl").head(7))
    assert [p.values["psnr"] for p in points] == [p.step for p in points] == list(range(1, 36, 5))


def test_steps_that_were_logged_twice_count_once(run):
    with (run / "log.jsonl").open("a") as log:
        log.write("\n" + json.dumps(line(1996) | {"loss": 9.0}) + "\n")
    log = training.read_log(run / "log.jsonl")
    assert len(log) == 400 and log["loss"].iloc[-1] == 9.0


def test_a_curve_is_recorded_once_with_the_provenance_of_its_run(run, tmp_path, capsys):
    out = tmp_path / "results"
    assert EXPERIMENT.main([str(run), "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"{5 * training.MOST_POINTS} new rows in training.jsonl\n"
    assert EXPERIMENT.main([str(run), "--out", str(out)]) == 0
    assert capsys.readouterr().out == "0 new rows in training.jsonl\n"
    frame = rows_file.read_rows(out / "training.jsonl")
    assert set(frame["experiment"]) == {"training"} and set(frame["subject"]) == {"tiny"}
    assert set(zip(frame["metric"], frame["unit"], strict=True)) == set(training.UNITS.items())
    assert set(frame["commit"]) == {"abc1234"} and frame["dirty"].all()
    assert set(frame["seed"]) == {3} and set(frame["device"]) == {"some CPU"}
    table = training.curve(frame, frame["weights_sha256"].iloc[0])
    assert list(table["step"]) == sorted(table["step"]) and len(table) == training.MOST_POINTS
    assert set(table) == {"step", *training.UNITS}
    assert (table["psnr"] < table["step"]).all()


def test_another_release_has_a_curve_of_its_own(run, tmp_path, capsys):
    out = tmp_path / "results"
    EXPERIMENT.main([str(run), "--out", str(out)])
    write_weights(run, seed=1)
    (run / "log.jsonl").write_text(json.dumps(line(10)) + "\n")
    EXPERIMENT.main([str(run), "--out", str(out)])
    assert "5 new rows" in capsys.readouterr().out
    frame = rows_file.read_rows(out / "training.jsonl")
    old, new = frame["weights_sha256"].unique()
    assert len(training.curve(frame, old)) == training.MOST_POINTS
    assert training.curve(frame, new)["step"].tolist() == [10]
    assert training.curve(frame, new[:12]).equals(training.curve(frame, new))


def test_bad_input_is_one_sentence_and_exit_2(run, tmp_path, capsys):
    assert EXPERIMENT.main([str(tmp_path / "none"), "--out", str(tmp_path)]) == 2
    assert "weights.safetensors" in capsys.readouterr().err
    (run / "log.jsonl").write_text('{"step": 1}\nnot a line\n')
    assert EXPERIMENT.main([str(run), "--out", str(tmp_path)]) == 2
    assert "no line of a training log" in capsys.readouterr().err
    (run / "log.jsonl").unlink()
    assert EXPERIMENT.main([str(run), "--out", str(tmp_path)]) == 2
    assert "there is no log" in capsys.readouterr().err
    empty = rows.pd.DataFrame(columns=list(rows.SCHEMA), dtype=str)
    with pytest.raises(InputError, match="no training curve of the weights 'abc'"):
        training.curve(empty, "abc")
