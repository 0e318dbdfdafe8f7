"""Configurations say what they are, survive JSON, and refuse what cannot be built."""

import json

import pytest

from medil.config import PRESETS, DataConfig, ModelConfig, RunConfig, TrainConfig, preset
from medil.errors import InputError


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_survives_json(name):
    config = preset(name)
    assert config.preset == name
    assert RunConfig.from_json(config.to_json()) == config


def test_the_paper_s_preset_learns_both_ends_with_the_literal_layer():
    model = preset("paper").model
    assert (model.operator, model.encoder_operator, model.closed_form) == (
        "literal",
        "literal",
        False,
    )


def test_the_default_names_our_departure():
    model = preset("tiny").model
    assert (model.operator, model.closed_form) == ("integrated", True)


def test_a_changed_field_changes_the_digest():
    config = preset("tiny")
    for part, field in (("model", "width_fine"), ("train", "batch"), ("data", "subjects")):
        raw = json.loads(config.to_json())
        raw[part][field] += 1
        assert RunConfig.from_json(json.dumps(raw)).digest() != config.digest()


def test_an_unknown_field_is_refused():
    raw = json.loads(preset("tiny").to_json())
    raw["model"]["colour"] = "blue"
    with pytest.raises(InputError, match="colour"):
        RunConfig.from_json(json.dumps(raw))


def test_an_unknown_preset_lists_those_there_are():
    with pytest.raises(InputError, match="tiny"):
        preset("huge")


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"architecture": "cubic"}, "cubic"),
        ({"latent_channels": 7}, "latent_channels"),
        ({"latent_spacing_mm": 0.0}, "above zero"),
        ({"closed_form": False, "latent_channels": 0}, "above zero"),
    ],
)
def test_what_cannot_be_built_is_refused(wrong, word):
    with pytest.raises(InputError, match=word):
        ModelConfig(**wrong)


@pytest.mark.parametrize(
    "make",
    [
        lambda: TrainConfig(minutes=0),
        lambda: TrainConfig(minutes=float("nan")),
        lambda: TrainConfig(global_share=1.0),
        lambda: DataConfig(subjects=0),
        lambda: DataConfig(real_share=1.5),
    ],
    ids=["no time", "nan time", "stage one alone", "no subject", "more than all"],
)
def test_runs_that_cannot_be_are_refused(make):
    with pytest.raises(InputError):
        make()


def test_a_mix_weighs_kinds():
    assert DataConfig().weights() == {}
    assert DataConfig(mix=("brain:3", "head:0.5")).weights() == {"brain": 3.0, "head": 0.5}
    for wrong in ("brain", "brain:0", "brain:x", "brain:inf", "brain:nan"):
        with pytest.raises(InputError, match="such as brain:3"):
            DataConfig(mix=(wrong,))
    with pytest.raises(InputError, match="each kind once"):
        DataConfig(mix=("brain:1", "brain:2"))
    with pytest.raises(InputError, match="thick_mm"):
        DataConfig(thick_mm=(6.0, 2.0))
