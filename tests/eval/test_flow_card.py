import pytest

from eval.generation import EXPERIMENT
from eval.generation.card import card, conditions_table, networks
from medil.data.releases import RELEASES
from medil.diffusion.config import FLOW_PRESETS
from medil.errors import InputError
from medil.synth.attributes import COVARIATES

pytest.importorskip("einops", reason="needs the extra `sample`")
from medil.diffusion.training import load_flow_release


@pytest.fixture(scope="module")
def flow():
    return load_flow_release("tiny")


@pytest.fixture(scope="module")
def frame():
    return EXPERIMENT.recorded()


def test_the_committed_card_is_what_weights_and_rows_say(flow, frame):
    assert (RELEASES / "tiny-ldm.md").read_text(encoding="utf-8") == card("tiny", flow, frame)


def test_a_release_is_small_and_belongs_to_the_released_autoencoder(flow):
    from medil.model.weights import load_release

    assert (RELEASES / "tiny-ldm.safetensors").stat().st_size <= 8e6
    assert flow.known.autoencoder_id == load_release("tiny").weights_id


def test_every_condition_stands_in_the_card_with_its_unit(flow):
    lines = conditions_table(flow).splitlines()[2:]
    assert len(lines) == len(flow.known.spreads)
    for name, line in zip(flow.known.spreads, lines, strict=True):
        assert f"`{name}`" in line and f"| {COVARIATES[name].unit} |" in line


def test_networks_are_named_from_coarse_to_fine_with_their_cells():
    coarse, fine = networks(FLOW_PRESETS["tiny"].model, 4.0)
    assert coarse.endswith("cells of 16 mm") and fine.endswith("cells of 4 mm")


def test_weights_without_rows_have_no_card(flow, frame):
    with pytest.raises(InputError, match="no row"):
        card("tiny", flow, frame[frame["weights_sha256"] == "none"])
