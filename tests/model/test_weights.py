"""`medil.model.weights`: damaged weights are refused when they are read, not by what they draw."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from medil.config import preset
from medil.errors import InputError
from medil.formats import WEIGHTS as FORMAT
from medil.model.autoencoder import MedIL
from medil.model.weights import load_model, save_weights, start_from
from medil.system.memory import resident_bytes
from tests.images import refused


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(0)
    config = preset("test")
    return save_weights(MedIL(config.model), config, tmp_path / "w.safetensors", {"steps": 3})


def without_digest(path, tensors=None, **meta):
    """The file as releases up to 0.6.0 wrote it, with some of its metadata changed."""
    config = preset("test")
    whole = {"format": str(FORMAT), "config": config.to_json(), "facts": "{}"} | meta
    save_file(tensors or load_file(path), path, {k: v for k, v in whole.items() if v is not None})
    return path


def test_a_changed_weight_is_refused(weights):
    content = bytearray(weights.read_bytes())
    content[-1000] ^= 1
    weights.write_bytes(content)
    with pytest.raises(InputError, match="is damaged"):
        load_model(weights)


def test_weights_without_a_digest_are_read(weights):
    expected = load_model(weights).state_dict()
    again = load_model(without_digest(weights)).state_dict()
    assert all(torch.equal(again[name], value) for name, value in expected.items())


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_weights_that_are_not_finite_are_refused(weights, value):
    tensors = load_file(weights)
    name = sorted(tensors)[3]
    tensors[name].view(-1)[0] = value
    without_digest(weights, tensors)
    for read in (load_model, lambda path: start_from(MedIL(preset("test").model), path)):
        with pytest.raises(InputError, match=f"{name} hold NaN or Inf"):
            read(weights)


@pytest.mark.parametrize("sizes", [{"width_latent": 10**5}, {"depth_fine": 10**9}])
def test_a_configuration_of_a_larger_model_than_the_file_takes_no_memory(weights, sizes):
    config = preset("test")
    larger = replace(config, model=replace(config.model, **sizes))
    before = resident_bytes()
    with pytest.raises(InputError, match="does not fit the model that its configuration names"):
        load_model(without_digest(weights, config=larger.to_json()))
    assert resident_bytes() - before < 100e6


@pytest.mark.parametrize(
    ("meta", "words"),
    [
        ({"config": "{"}, "not a configuration of this version"),
        ({"config": None}, "metadata cannot be read"),
        ({"config": "[]"}, "w.safetensors"),
        ({"config": json.dumps({"preset": "test", "model": 5})}, "w.safetensors"),
        ({"facts": "nothing"}, "metadata cannot be read"),
    ],
)
def test_metadata_that_mean_nothing_are_refused(weights, meta, words, run_medil, scan, tmp_path):
    without_digest(weights, **meta)
    with pytest.raises(InputError, match=words):
        load_model(weights)
    out = tmp_path / "out.nii"
    refused(run_medil("reconstruct", scan, "-o", out, "--weights", weights), "w.safetensors")


def test_weights_to_start_from_are_checked_before_heads_are_drawn(
    weights, run_medil, tmp_path, monkeypatch
):
    pytest.importorskip("lightning_fabric", reason="lightning-fabric (extra train) is missing")

    def draw(*_, **__):
        raise AssertionError("heads were drawn")

    monkeypatch.setattr("medil.training.autoencoder.training_scans", draw)
    weights.write_bytes(weights.read_bytes()[:-50])
    options = ("--preset", "test", "--steps", 1, "--from", weights)
    refused(run_medil("train", *options, "-o", tmp_path / "run"), "not a whole safetensors")
