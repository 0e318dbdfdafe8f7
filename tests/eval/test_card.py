import pytest

from eval.card import card, main, trained_on
from eval.reconstruction import EXPERIMENT
from medil.data.releases import RELEASES
from medil.errors import InputError
from medil.model.weights import load_release


@pytest.mark.parametrize("name", ["tiny", "base"])
def test_the_committed_card_is_what_weights_and_rows_say(name):
    text = card(name, load_release(name), EXPERIMENT.recorded())
    assert (RELEASES / f"{name}.md").read_text(encoding="utf-8") == text


def test_a_card_says_which_card_a_release_was_trained_on():
    facts = {"calls": [{"device": "NVIDIA X"}, {"device": "NVIDIA X"}]}
    assert trained_on(facts, 1) == "one NVIDIA X"
    assert trained_on({}, 2) == trained_on({"calls": [{"device": "arm CPU"}]}, 2)
    assert trained_on({}, 2) == "2 thread(s) of a CPU"


def test_a_release_without_rows_has_no_card():
    frame = EXPERIMENT.recorded()
    with pytest.raises(InputError, match="no row"):
        card("tiny", load_release("tiny"), frame[frame["arm"] != "medil"])


def test_missing_rows_are_one_sentence(tmp_path, capsys):
    assert main(["--rows", str(tmp_path)]) == 2
    assert "run python -m eval.reconstruction" in capsys.readouterr().err
