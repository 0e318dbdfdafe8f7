"""The card of the tissue segmenter: what it measures, and that it says so."""

import numpy as np
import pytest
import torch

from eval import segmenter_card
from eval.segmenter_card import agreement, clusters, dice, stripped
from medil.anatomy.classes import CLASSES, NUMBER, LabelMap
from medil.anatomy.painted import PaintedHead


@pytest.fixture
def head(rng) -> PaintedHead:
    """Slabs of air, CSF, cortex and white matter, with a rim that falls off."""
    labels = torch.arange(4, dtype=torch.uint8).repeat_interleave(6)[:, None, None]
    labels = labels.expand(24, 10, 10).contiguous()
    inside = torch.linspace(255, 0, 10).round().to(torch.uint8).expand(24, 10, 10)
    means = torch.tensor([0.0, 0.2, 0.6, 0.9])
    return PaintedHead(means[labels.int()].half(), labels, inside, "slabs")


def test_dice_of_masks():
    one, other = torch.tensor([1, 1, 0, 0]) > 0, torch.tensor([0, 1, 1, 0]) > 0
    assert (dice(one, one), dice(one, other), dice(one, ~one)) == (1, 0.5, 0)
    assert np.isnan(dice(one & ~one, one & ~one))


def test_clusters_are_ordered_by_brightness(rng):
    truth = rng.integers(3, size=5000)
    values = np.array([0.2, 0.6, 0.9])[truth] + 0.02 * rng.normal(size=5000)
    assert (clusters(values) == truth).all()


def test_a_head_is_cut_in_data_and_map_alike(head):
    scan, truth = stripped(head, 3)
    assert torch.equal(scan.data > 0, truth.labels > 0)
    assert 0 < int((truth.labels > 0).sum()) < int((head.labels > 0).sum())


def test_a_map_of_the_tissues_agrees_with_k_means(head):
    scan, truth = stripped(head, 3)
    assert agreement(scan, truth) == pytest.approx([1, 1, 1])
    swapped = torch.where(truth.labels == NUMBER["csf"], NUMBER["cortex"], truth.labels)
    assert agreement(scan, LabelMap(swapped.to(torch.uint8), truth.grid))[0] == 0


def test_every_class_belongs_to_a_cluster():
    assert set(segmenter_card.OF_CLASS) == set(CLASSES[1:])
