import pytest

from eval.generation import EXPERIMENT
from eval.generation.card import card, conditions_table, networks
from medil.data.releases import RELEASES
from medil.diffusion.config import FLOW_PRESETS
from medil.errors import InputError
from medil.synth.attributes import ATTRIBUTES

pytest.importorskip("einops", reason="needs the extra `sample`")
from medil.diffusion.training import load_flow_release


@pytest.fixture(scope="module")
def flow():
    return load_flow_release("tiny")


@pytest.fixture(scope="module")
def frame():
    return EXPERIMENT.recorded()


@pytest.mark.parametrize("name", ["tiny", "base"])
def test_the_committed_card_is_what_weights_and_rows_say(name, frame):
    text = (RELEASES / f"{name}-ldm.md").read_text(encoding="utf-8")
    assert text == card(name, load_flow_release(name), frame)


@pytest.mark.parametrize(("name", "n_bytes"), [("tiny", 8e6), ("base", 16 * 2**20)])
def test_a_release_is_small_and_belongs_to_the_released_autoencoder(name, n_bytes):
    from medil.model.weights import load_release

    assert (RELEASES / f"{name}-ldm.safetensors").stat().st_size <= n_bytes
    assert load_flow_release(name).known.autoencoder_id == load_release(name).weights_id


def test_every_condition_stands_in_the_card_with_its_unit(flow):
    lines = conditions_table(flow).splitlines()[2:]
    assert len(lines) == len(flow.known.spreads)
    for name, line in zip(flow.known.spreads, lines, strict=True):
        assert f"`{name}`" in line and f"| {ATTRIBUTES[name].unit} |" in line


def test_networks_are_named_from_coarse_to_fine_with_their_cells():
    coarse, fine = networks(FLOW_PRESETS["tiny"].model, 4.0)
    assert coarse.endswith("cells of 16 mm") and fine.endswith("cells of 4 mm")


def test_weights_without_rows_have_no_card(flow, frame):
    with pytest.raises(InputError, match="no row"):
        card("tiny", flow, frame[frame["weights_sha256"] == "none"])
