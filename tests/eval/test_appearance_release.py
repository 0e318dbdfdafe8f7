"""The released anatomy-first sampler: small, of the released autoencoder, and truly described."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from eval.generation import EXPERIMENT
from eval.generation.appearance_card import card
from eval.pictures import gallery
from medil.anatomy.classes import CLASSES, NUMBER, LabelMap
from medil.data.releases import RELEASES
from medil.diffusion.appearance_training import load_appearance_release
from medil.errors import InputError
from medil.grid import Grid
from medil.model.weights import load_release, short_digest
from medil.volume import Volume

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def flow():
    return load_appearance_release()


@pytest.fixture(scope="module")
def frame():
    return EXPERIMENT.recorded()


def test_the_committed_card_is_what_weights_and_rows_say(flow, frame):
    text = (RELEASES / "tiny-appearance.md").read_text(encoding="utf-8")
    assert text == card("tiny", flow, frame)


def test_weights_without_rows_have_no_card(flow, frame):
    with pytest.raises(InputError, match="no row"):
        card("tiny", flow, frame[frame["weights_sha256"] == "none"])


def test_it_is_small_and_belongs_to_the_released_autoencoder(flow):
    assert (RELEASES / "tiny-appearance.safetensors").stat().st_size <= 8e6
    assert flow.known.autoencoder_id == load_release("tiny").weights_id


def test_the_picture_of_samples_was_drawn_by_these_weights(flow):
    with Image.open(ROOT / gallery.GALLERY) as picture:
        assert picture.info["Source"] == short_digest(flow.weights_id)


def test_every_scan_stands_above_its_map():
    drawn = []
    for name in ("cortex", "brainstem", "lateral ventricles"):
        grid = Grid.from_spacing((6, 1, 5), 1.0)
        labels = torch.full((6, 1, 5), NUMBER[name], dtype=torch.uint8)
        drawn.append((Volume(torch.rand(6, 1, 5), grid), LabelMap(labels, grid)))
    figure = gallery.gallery(drawn, columns=2)
    filled = [ax.images[0] for ax in figure.axes if ax.images]
    assert len(figure.axes) == 8 and len(filled) == 6
    assert filled[2].get_array().shape == (5, 6)  # S upwards, R to the right
    assert (filled[2].get_array() == NUMBER["cortex"]).all()


def test_every_class_has_a_colour_of_its_own():
    assert list(gallery.COLOURS) == list(CLASSES)
    assert len(set(gallery.COLOURS.values())) == len(CLASSES)
