"""The precision in which a loss is computed."""

import pytest
import torch

from medil.system.device import training_precision


@pytest.mark.parametrize(
    ("asked", "has", "expected"),
    [
        (True, True, torch.bfloat16),
        (True, False, torch.float32),
        (False, True, torch.float32),
    ],
)
def test_training_is_in_bfloat16_where_it_is_asked_for_and_not_emulated(
    asked, has, expected, monkeypatch
):
    monkeypatch.setattr("medil.system.device.has_bfloat16", lambda: has)
    layer, x = torch.nn.Conv3d(1, 1, 1), torch.ones(1, 1, 2, 2, 2)
    with training_precision(torch.device("cpu"), asked):
        assert layer(x).dtype == expected
