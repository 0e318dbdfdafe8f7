import pytest

from eval import thin_structures
from eval.card import card, earlier_runs, main, real_scans, trained_on
from eval.reconstruction import EXPERIMENT
from eval.thin_structures import card as thin_structures_card
from medil.config import DataConfig
from medil.data.releases import RELEASES
from medil.errors import InputError
from medil.model.weights import load_release


@pytest.mark.parametrize("name", ["tiny", "base"])
def test_the_committed_card_is_what_weights_and_rows_say(name):
    text = card(name, load_release(name), EXPERIMENT.recorded())
    assert (RELEASES / f"{name}.md").read_text(encoding="utf-8") == text


def test_the_committed_card_for_chests_is_what_weights_and_rows_say():
    text = thin_structures_card.card(
        "chest-tiny", load_release("chest-tiny"), thin_structures.EXPERIMENT.recorded()
    )
    assert (RELEASES / "chest-tiny.md").read_text(encoding="utf-8") == text


def test_a_card_says_which_card_a_release_was_trained_on():
    facts = {"calls": [{"device": "NVIDIA X"}, {"device": "NVIDIA X"}]}
    assert trained_on(facts, 1) == "one NVIDIA X"
    assert trained_on({}, 2) == trained_on({"calls": [{"device": "arm CPU"}]}, 2)
    assert trained_on({}, 2) == "2 thread(s) of a CPU"


def test_a_card_names_the_real_scans_of_each_kind_and_their_share():
    old, new = (
        real_scans(DataConfig()),
        real_scans(DataConfig(mix=("brain:2", "head:1"), thick_share=0.4)),
    )
    assert "2 raw heads of `open_ms_t1` (100%; CC-BY" in old and "ds002748" not in old
    assert "40 skull-stripped brains of `ds002748` (67%; CC0" in new
    assert "2 raw heads of `open_ms_t1` (33%; CC-BY" in new
    assert "40% of patches of thin voxels were averaged to slices of 2 to 6 mm" in new


def test_a_card_counts_every_run_behind_its_weights():
    first = {"step": 10, "minutes": 1.0, "commit": "a"}
    second = {"step": 20, "minutes": 2.0, "commit": "b", "earlier": first}
    assert earlier_runs(first) == ""
    assert "10 steps in 1 minutes, commit `a`" in earlier_runs(second)
    said = earlier_runs({"step": 40, "earlier": second})
    assert "2 earlier runs of 30 steps and 3 minutes" in said and "commit `a`" in said


def test_a_release_without_rows_has_no_card():
    frame = EXPERIMENT.recorded()
    with pytest.raises(InputError, match="no row"):
        card("tiny", load_release("tiny"), frame[frame["arm"] != "medil"])


def test_missing_rows_are_one_sentence(tmp_path, capsys):
    assert main(["--rows", str(tmp_path)]) == 2
    assert "run python -m eval.reconstruction" in capsys.readouterr().err
