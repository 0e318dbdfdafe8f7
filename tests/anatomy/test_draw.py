"""`medil.anatomy.draw`: new anatomies, whose facts come out as they are asked for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage

from medil.anatomy.classes import BRAIN
from medil.anatomy.draw import Solver, draw_anatomy, solve_rising
from medil.anatomy.packed import packed_maps
from medil.anatomy.shape import draw_shape, jacobian, measured, tissue_map
from medil.errors import InputError
from medil.grid import Grid, centres_mm
from medil.synth.box import box_grid
from tests.anatomy.conftest import toy_packed


def test_an_anatomy_is_the_same_every_time_and_lies_in_the_box(packed):
    one, again, other = (draw_anatomy(3, k, maps=[packed]) for k in (0, 0, 1))
    assert one.tissues.grid == box_grid(1.0)
    assert torch.equal(one.tissues.labels, again.tissues.labels) and one.facts == again.facts
    assert not torch.equal(one.tissues.labels, other.tissues.labels)
    brain = centres_mm(one.tissues.grid)[one.tissues.is_class(*BRAIN)]
    assert ((brain.amin(0) + brain.amax(0)) / 2).abs().max() < 2.5  # in the middle of the box
    assert one.facts["source"] == "toy" and one.facts["seed"] == 3


@pytest.mark.parametrize(
    "asked",
    [
        {"ventricles": 5.0}, {"brain": 60.0}, {"ventricles": 3.0, "brain": 85.0},
        {"asymmetry": -0.2}, {"ventricles": 6.5, "brain": 80.0, "asymmetry": 0.15},
    ],
    ids=lambda asked: " ".join(asked),
)  # fmt: skip
def test_what_is_asked_for_comes_out_within_a_percent(packed, asked):
    drawn = draw_anatomy(5, 2, asked, maps=[packed])
    counted = {
        "ventricles": drawn.tissues.volumes_ml()["lateral ventricles"],
        "brain": float(drawn.tissues.is_class(*BRAIN).sum()) / 1000,
        "asymmetry": drawn.facts["asymmetry"],
    }
    for name, value in asked.items():
        allowed = 0.01 if name == "asymmetry" else 0.01 * value
        assert abs(counted[name] - value) <= allowed, (name, counted[name])
        assert drawn.facts[name] == pytest.approx(counted[name])


def test_the_asymmetry_is_that_of_the_halves_of_the_map(packed):
    shape = Solver(draw_shape(packed, np.random.default_rng(1))).solve({"asymmetry": 0.25})
    tissues = tissue_map(shape)
    right_mm = centres_mm(tissues.grid)[tissues.is_class("lateral ventricles")][:, 0]
    share = float((right_mm > _middle(tissues)).float().mean())
    assert 2 * share - 1 == pytest.approx(measured(shape, tissues)["asymmetry"], abs=0.08)
    other = replace(shape, mirrored=not shape.mirrored, growth=shape.growth[::-1])
    flipped = measured(other, tissue_map(Solver(other).solve({})))
    assert flipped["asymmetry"] == pytest.approx(-measured(shape, tissues)["asymmetry"], abs=0.03)


def _middle(tissues) -> float:
    brain_mm = centres_mm(tissues.grid)[tissues.is_class(*BRAIN)][:, 0]
    return float(brain_mm.mean())


def test_another_anatomy_is_taken_where_the_first_cannot_reach(packed):
    wide = toy_packed(8.0, "wide")
    sources = {
        draw_anatomy(2, k, {"ventricles": 12.0}, [packed, wide]).facts["source"] for k in (0, 1)
    }
    assert sources == {"wide"}


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"ventricles": 90.0}, r"no anatomy reaches ventricles = 90 ml .*toy, reaches .* to "),
        ({"brain": 900.0}, r"no anatomy reaches brain = 900 ml .*reaches .* to "),
        ({"asymmetry": 0.99}, r"no anatomy reaches asymmetry = 0\.99 with"),
        ({"folds": 3.0}, "no fact 'folds'; ask for ventricles, brain, asymmetry"),
        ({"brain": -1.0}, "between 0 and inf, not at -1"),
    ],
)
def test_what_cannot_be_had_is_one_sentence(packed, asked, sentence):
    with pytest.raises(InputError, match=sentence):
        draw_anatomy(5, 2, asked, maps=[packed])


def test_nothing_folds():
    packed = packed_maps()[8]  # small ventricles, which have the farthest to grow
    for seed in range(2):
        shape = draw_shape(packed, np.random.default_rng(seed))
        assert jacobian(shape.displacement_mm, shape.known.lattice).min() > 0
        solver = Solver(shape)
        for end in solver.growth_range:
            torn = replace(shape, growth=(end, end))
            assert jacobian(torn.displacement_mm, shape.known.lattice).min() > 0


def test_the_jacobian_of_a_stretch_is_its_factor():
    lattice = Grid.from_spacing((9, 8, 7), 4.0, (-5.0, 3.0, 2.0))
    stretch = torch.tensor([0.2, -0.1, 0.3], dtype=torch.float64)
    displacement = (centres_mm(lattice) * stretch).movedim(-1, 0).float()
    assert jacobian(displacement, lattice) == pytest.approx(1.2 * 0.9 * 1.3, abs=1e-4)


def test_csf_surrounds_the_brain_to_the_drawn_rim(packed):
    drawn = draw_anatomy(7, 0, maps=[packed])
    labels = drawn.tissues.labels.numpy()
    brain = drawn.tissues.is_class(*BRAIN).numpy()
    outside_mm = ndimage.distance_transform_edt(~brain)
    rim_mm = outside_mm[(labels > 0) & ndimage.binary_dilation(labels == 0)]
    assert np.median(rim_mm) == pytest.approx(drawn.facts["rim_mm"], abs=0.8)
    assert ndimage.label(labels == 0)[1] == 1  # no holes


def test_solving_takes_few_steps():
    calls = []

    def function(argument):
        calls.append(argument)
        return np.exp(argument * [0.5, 0.8]) + 3

    found = solve_rising(function, np.array([5.0, 30.0]), (-4.0, 6.0))
    assert function(np.array(found)) == pytest.approx([5.0, 30.0], rel=2e-3)
    assert len(calls) < 20


def test_larger_bends_move_a_map_further(packed):
    once, twice = (
        draw_shape(packed, np.random.default_rng(4), bends).displacement_mm.abs().mean()
        for bends in (1.0, 2.0)
    )
    assert 1.3 * once < twice < 2.5 * once
