"""Dials: every field of a configuration by name, with its type, or one clear sentence."""

import json
from dataclasses import fields

import pytest

from medil.config import PRESETS, RunConfig
from medil.dials import changed, flat, read_file, read_settings
from medil.diffusion.config import FLOW_PRESETS, FlowConfig
from medil.errors import InputError

TEST, FLOW = PRESETS["test"], FLOW_PRESETS["test"]


def test_several_dials_are_turned_at_once_whatever_their_order():
    settings = {"model.latent_channels": "12", "model.closed_form": "no", "train.batch": "3"}
    for names in (list(settings), list(settings)[::-1]):
        config = changed(TEST, {name: settings[name] for name in names})
        assert (config.model.latent_channels, config.model.closed_form) == (12, False)
        assert config.train.batch == 3 and config.data == TEST.data
    with pytest.raises(InputError, match="closed-form"):
        changed(TEST, {"model.latent_channels": "12"})


@pytest.mark.parametrize("config", [*PRESETS.values(), *FLOW_PRESETS.values()])
def test_every_dial_of_every_preset_can_be_named_and_keeps_its_value(config):
    names = flat(config)
    assert {f.name for f in fields(config)} == {name.split(".")[0] for name in names}
    assert changed(config, names) == config
    assert type(config).from_json(config.to_json()) == config


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("model.latent_spacing_mm", "3", 3.0),
        ("train.steps", "7", 7),
        ("train.bf16", "off", False),
        ("train.loss", "l1", "l1"),
        ("train.patch_sides_mm", "24, 32", (24.0, 32.0)),
        ("train.patch_sides_mm", "24", (24.0,)),
        ("data.noise", "[0, 0.1]", (0.0, 0.1)),
    ],
)
def test_texts_become_the_type_of_their_field(name, text, value):
    found = flat(changed(TEST, {name: text}))[name]
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("model.latent_spacing", "3", "nearest one is 'model.latent_spacing_mm'"),
        ("latent_spacing_mm", "3", "nearest one is 'model.latent_spacing_mm'"),
        ("modle.hidden", "3", "nearest one is 'model.hidden'"),  # codespell:ignore modle
        ("model", "3", "no setting 'model'"),
        ("model.hidden.deeper", "3", "nearest one is 'model.hidden'"),
        ("model.hidden", "2.5", "model.hidden is a whole number, not '2.5'"),
        ("train.learning_rate", "fast", "train.learning_rate is a number"),
        ("train.learning_rate", "nan", "train.learning_rate is a number"),
        ("train.bf16", "perhaps", "train.bf16 is true or false"),
        ("train.bf16", 1, "train.bf16 is true or false"),
        ("train.steps", True, "train.steps is a whole number"),
        ("data.noise", "0.1", "data.noise holds 2 values, not 1"),
        ("train.loss", "huber", "loss must be one of"),
    ],
)
def test_wrong_names_and_values_are_one_sentence(name, text, words):
    with pytest.raises(InputError) as error:
        changed(TEST, {name: text})
    assert words in str(error.value)


def test_a_group_may_be_absent_begun_and_removed():
    begun = changed(FLOW, {"model.coarse.channels": "16", "model.coarse.attention": "no"})
    assert begun.model.coarse == FlowConfig(channels=(16,), attention=(False,))
    assert changed(begun, {"model.coarse.head_channels": 8}).model.coarse.head_channels == 8
    assert changed(begun, {"model.coarse": "none"}) == FLOW
    with pytest.raises(InputError, match=r"nearest one is 'model\.coarse\.channels'"):
        changed(begun, {"model.coarse.channel": "16"})


def test_settings_are_read_from_texts_and_files(tmp_path):
    assert read_settings(["model.hidden = 8", "heads=3"]) == {"model.hidden": "8", "heads": "3"}
    for texts, words in ((["model.hidden"], "not of the form"), (["heads=1", "heads=2"], "twice")):
        with pytest.raises(InputError, match=words):
            read_settings(texts)
    file = tmp_path / "config.json"
    file.write_text('{"model": {"hidden": 8}}')
    assert flat(read_file(file)) == {"model.hidden": 8}
    for text in ("[1]", "{", ""):
        file.write_text(text)
        with pytest.raises(InputError, match=r"no JSON|not a JSON"):
            read_file(file)
    with pytest.raises(InputError, match="could not be read"):
        read_file(tmp_path / "gone.json")


def test_fields_of_earlier_releases_are_dropped():
    raw = json.loads(TEST.to_json())
    raw["data"]["renew_every"] = 0
    assert RunConfig.from_json(json.dumps(raw)) == TEST
