"""Convolutions that roll over slabs give what they give on the whole."""

from __future__ import annotations

import pytest
import torch

from medil.layers.blocks import init_weights, residual_blocks
from medil.model.streaming_conv import Course, Window, convolve, roll, whole_cells


def small_network() -> torch.nn.Sequential:
    torch.manual_seed(1)
    network = torch.nn.Sequential(torch.nn.Conv3d(2, 3, 3, padding=1), *residual_blocks(3, 2))
    init_weights(network)
    return network


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("thick", [1, 2, 5, 40])
def test_rolling_blocks_give_what_the_whole_gives(axis, descending, thick):
    network = small_network()
    x, course = torch.rand(2, 2, 9, 8, 7), Course(axis, descending)
    with torch.inference_mode():
        slabs = list(roll(network[1:], convolve(network[0], course.cut(x, thick), course), course))
        torch.testing.assert_close(course.join(slabs), network(x), atol=1e-6, rtol=1e-5)
    assert sum(map(course.length, slabs)) == x.shape[axis + 2]


def test_gradients_flow_through_rolling_blocks():
    network, course = small_network().double(), Course(0)
    x = torch.rand(1, 2, 7, 5, 6, dtype=torch.float64)
    weights = list(network.parameters())
    slabs = roll(network[1:], convolve(network[0], course.cut(x, 2), course), course)
    found = torch.autograd.grad(course.join(list(slabs)).square().sum(), weights)
    true = torch.autograd.grad(network(x).square().sum(), weights)
    for one, other in zip(found, true, strict=True):
        torch.testing.assert_close(one, other, atol=1e-10, rtol=1e-10)


def test_rolling_leaves_the_slabs_that_it_takes_as_they_are():
    x = torch.rand(1, 3, 5, 4, 6)
    given = [x.clone()]
    with torch.inference_mode():
        list(roll(small_network()[1:], iter(given), Course(0)))
    assert torch.equal(given[0], x)


def test_a_window_holds_what_is_in_use_and_no_more():
    course = Course(1, descending=True)
    x = torch.arange(20.0).reshape(1, 1, 1, 20, 1)
    window = Window(course.cut(x, 3), course)
    for first, stop in [(0, 2), (1, 6), (4, 6), (11, 20)]:
        assert window.view(first, stop).flatten().flip(0).tolist() == list(
            range(19 - first, 19 - stop, -1)
        )
        assert len(window.waiting) < stop - first + 3


def test_whole_cells_lose_no_plane():
    course = Course(0)
    x = torch.arange(12.0).reshape(1, 1, 12, 1, 1)
    slabs = list(whole_cells(x.split([1, 4, 2, 5], dim=2), course, 3))
    assert [course.length(s) for s in slabs] == [3, 3, 6]
    torch.testing.assert_close(course.join(slabs), x)
