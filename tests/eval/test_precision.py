"""What bfloat16 costs: rows in both precisions, and their differences."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from eval import rows
from eval.reconstruction import precision
from eval.subjects import Scan, Subject
from medil.config import preset
from medil.grid import Grid
from medil.model.weights import save_weights
from medil.volume import Volume


def frame(values: dict[tuple[str, str], float]) -> pd.DataFrame:
    return pd.DataFrame(
        [{"experiment": "precision", "arm": "medil", "metric": "psnr", "subject": s,
          "condition": c, "value": v} for (s, c), v in values.items()]
    )  # fmt: skip


def test_the_cost_is_float32_minus_bfloat16_of_each_scan():
    own = frame({("a", "float32"): 31.0, ("a", "bfloat16"): 30.99,
                 ("b", "float32"): 28.0, ("b", "bfloat16"): 28.002})  # fmt: skip
    assert precision.costs(own)["cost_db"].tolist() == pytest.approx([0.01, -0.002])
    assert "0.0040 dB on average, at most 0.0100 dB (n = 2" in precision.sentence(own)
    assert precision.sentence(own[:0]) == ""
    assert precision.precision_table(own)["bfloat16 costs (dB)"].tolist() == ["0.0100", "-0.0020"]


def test_real_scans_are_measured_once_in_both_precisions(tmp_path, spline_model, rng):
    path = save_weights(spline_model, preset("test"), tmp_path / "m.safetensors", {}, half=False)
    grid = Grid.from_spacing((12, 13, 14), 1.0)
    data = torch.from_numpy(rng.random(grid.shape)).float()
    scan = Scan(Volume(data, grid), np.ones(grid.shape, bool))
    real = Subject("a", "d" * 64, ("native -> native",), lambda: scan, "brain")
    made = Subject("b", "e" * 64, ("native -> native",), lambda: scan)
    provenance = rows.Provenance.now("quick")
    (task,) = precision.tasks([real, made], str(path), set(), provenance)
    measured = task.measure()
    assert {row.identity for row in measured} == task.wanted
    assert [row.condition for row in measured] == ["float32", "bfloat16"]
    assert not precision.tasks([real], str(path), set(task.wanted), provenance)
