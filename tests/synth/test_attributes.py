"""Attributes: volumes against counted labels, contrast against painted means, scores."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from medil.diffusion.config import CONDITIONS, KNOWN_CONDITIONS
from medil.errors import InputError
from medil.synth.anatomy import label_anatomy
from medil.synth.attributes import (
    ATTRIBUTES,
    COVARIATES,
    Spread,
    attributes,
    range_warnings,
    standard_scores,
)
from medil.synth.subject import CohortConfig, draw_subject
from tests.images import LABELS_ORIGIN_MM, toy_labels, write_nifti

VENTRICLE_MM = np.array([2.0, 3.0, 1.0])
PLAIN = CohortConfig(  # nothing moves a volume, and tissue is even
    scale=(1.0, 1.0), rotation_deg=0.0, warp_mm=(0.0, 0.0), ventricles=(0.0, 0.0),
    texture=(0.0, 0.0), shading=(0.0, 0.0), bias=(0.0, 0.0),
)  # fmt: skip


@pytest.fixture(scope="module")
def anatomy(tmp_path_factory):
    """The anatomy of the toy labels."""
    affine = np.eye(4)
    affine[:3, 3] = LABELS_ORIGIN_MM
    path = tmp_path_factory.mktemp("labels") / "toy.nii.gz"
    return label_anatomy(write_nifti(path, toy_labels(VENTRICLE_MM, 7.0), affine))


def volume_ml(*labels: int) -> float:
    return np.isin(toy_labels(VENTRICLE_MM, 7.0), labels).sum() / 1000


def known(anatomy, config, index=0):
    return attributes(draw_subject(anatomy, 7, index, config), anatomy, 1.0)


# What is known of a head


def test_every_condition_of_a_flow_is_an_attribute(anatomy):
    assert tuple(ATTRIBUTES) == CONDITIONS == tuple(known(anatomy, PLAIN))
    assert set(KNOWN_CONDITIONS) <= set(COVARIATES)


@pytest.mark.parametrize("index", [0, 1])
def test_volumes_of_an_unwarped_head_are_those_of_its_labels(anatomy, index):
    found = known(anatomy, PLAIN, index)  # a shear is drawn all the same, which keeps volumes
    assert found["ventricles"] == pytest.approx(volume_ml(4), rel=0.05)
    assert found["brain"] == pytest.approx(volume_ml(2, 3, 4), rel=0.03)


def test_volumes_scale_with_the_head(anatomy):
    plain = known(anatomy, PLAIN)
    grown = known(anatomy, replace(PLAIN, scale=(1.2, 1.2)))
    for name in ("ventricles", "brain"):
        assert grown[name] / plain[name] == pytest.approx(1.2**3, rel=0.04)


def test_pulling_the_ventricles_open_gives_more_of_them(anatomy):
    found = [
        known(anatomy, replace(PLAIN, ventricles=(pull, pull)))["ventricles"]
        for pull in (-25.0, 0.0, 40.0)
    ]
    assert found[0] < 0.95 * found[1] and found[1] < 0.95 * found[2]


def test_contrast_is_the_ratio_of_painted_tissue(anatomy):
    head = draw_subject(anatomy, 7, 3, PLAIN)
    found = attributes(head, anatomy, 1.0)["contrast"]
    # Along the x axis: white matter at 12 mm, cortex at 17 mm (of 15 and 19)
    white, cortex = head.at(torch.tensor([[-12.0, 0.0, 0.0], [-17.0, 0.0, 0.0]])).tolist()
    assert white > cortex > 0
    assert found == pytest.approx(white / cortex, rel=0.03)


def test_spacing_is_what_the_scan_had(anatomy):
    head = draw_subject(anatomy, 7, 0, PLAIN)
    assert attributes(head, anatomy, 1.6)["spacing"] == 1.6


def test_a_head_that_is_no_segmentation_is_refused(anatomy):
    head = draw_subject(anatomy, 7, 0, PLAIN)
    with pytest.raises(InputError, match="not a segmentation"):
        attributes(head, replace(anatomy, numbers=()), 1.0)
    bare = replace(anatomy, tissues=tuple("csf" for _ in anatomy.tissues))
    with pytest.raises(InputError, match="has no white matter"):
        attributes(head, bare, 1.0)


# What is asked for

SPREADS = {"ventricles": Spread(30, 10, 15, 60), "contrast": Spread(1.3, 0.0, 1.3, 1.3)}


def test_standard_scores_keep_the_models_order_and_flag_what_is_given():
    both = {"contrast": 1.5, "ventricles": 30}
    rows = standard_scores([{"ventricles": 45}, {}, both], SPREADS).tolist()
    assert rows[:2] == [[1.5, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0]]
    assert rows[2] == pytest.approx([0.0, 0.2, 1.0, 1.0])  # no spread: its units


def test_an_unknown_attribute_is_refused_with_those_there_are():
    with pytest.raises(InputError, match="no condition 'brain'; choose from ventricles, contrast"):
        standard_scores([{"brain": 1200.0}], SPREADS)


@pytest.mark.parametrize(("value", "warned"), [(15, 0), (60, 0), (14.9, 1), (200, 1)])
def test_only_values_beyond_the_range_are_named_with_it(value, warned):
    said = range_warnings({"ventricles": value, "contrast": 1.3}, SPREADS)
    assert len(said) == warned
    assert all(f"ventricles = {value:g} ml" in s and "15 to 60" in s for s in said)
