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


def test_the_release_beats_every_linear_codec_of_its_size_on_the_held_out_brain():
    """The bar of the project, on recorded rows: as many numbers, 1 mm, inside the brain."""
    rows = EXPERIMENT.recorded()
    rows = rows[rows["subject"].str.contains("patient07") & (rows["metric"] == "psnr")]
    rows = rows[rows["condition"] == "native -> native"].set_index("arm")
    linear = rows.loc[["cubic", "dct_cube", "dct_ball", "bspline"]]
    assert (linear["numbers_kept"] >= rows.loc["medil", "numbers_kept"]).all()
    assert rows.loc["medil", "value"] >= linear["value"].max() + 1.0


def test_a_release_without_rows_has_no_card():
    frame = EXPERIMENT.recorded()
    with pytest.raises(InputError, match="no row"):
        card("tiny", load_release("tiny"), frame[frame["arm"] != "medil"])


def test_missing_rows_are_one_sentence(tmp_path, capsys):
    assert main(["--rows", str(tmp_path)]) == 2
    assert "run python -m eval.reconstruction" in capsys.readouterr().err
