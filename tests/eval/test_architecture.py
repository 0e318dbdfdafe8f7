"""The drawing of the model says what the model does: shapes, reach, weights."""

import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from eval.pictures import architecture
from medil.config import PRESETS
from medil.grid import Grid
from medil.model.autoencoder import MedIL

SCAN = Grid.from_spacing((16, 16, 8), (1.0, 1.0, 2.0))


def shapes_seen(model: MedIL, scan: Grid, target: Grid) -> list[tuple[int, ...]]:
    """[C, d, h, w] behind each part, by forward hooks, and of the latent and the rendering."""
    seen: list[tuple[int, ...]] = []
    layers = [model.encoder.fine, model.encoder.latent, model.decoder.latent, model.decoder.fine]
    for layer in layers:
        layer[-1].register_forward_hook(lambda *call: seen.append(tuple(call[2].shape[1:])))
    cells = model.latent_grid(scan)
    with torch.enable_grad():  # without gradients, decoding is slab by slab
        mean, _ = model.encode_tensor(torch.rand(1, 1, *scan.shape), scan, cells)
        image = model.decode_tensor(mean, cells, target)
    encoder, decoder = seen[:2], seen[2:]
    return [(1, *scan.shape), *encoder, tuple(mean.shape[1:]), *decoder, tuple(image.shape[1:])]


@pytest.mark.parametrize("preset", ["test", "tiny", "base"])
def test_shapes_are_those_of_a_forward_pass(preset):
    model = MedIL(PRESETS[preset].model).eval()
    chain = architecture.parts(model, SCAN, rendered_mm=1.0)
    told = [(part.channels, *part.grid.shape) for part in chain]
    assert told == shapes_seen(model, SCAN, chain[-1].grid)
    assert sum(part.weights for part in chain) == sum(p.numel() for p in model.parameters())


@pytest.fixture
def learned() -> MedIL:
    """A network alone, every weight of which counts."""
    config = replace(PRESETS["test"].model, closed_form=False, width_encoder=4, width_latent=4)
    model = MedIL(replace(config, width_fine=4)).eval()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for layer in model.modules():
            if isinstance(layer, nn.Conv3d | nn.Linear):
                nn.init.normal_(layer.weight)
    return model


def width(gradient: torch.Tensor) -> int:
    """How many voxels or cells along the last axis have a gradient."""
    return int(np.count_nonzero(gradient.abs().sum(dim=tuple(range(gradient.ndim - 1))).numpy()))


def test_a_latent_number_sees_what_the_drawing_says(learned):
    scan = Grid.from_spacing((36, 36, 36), 1.0)
    cells = learned.latent_grid(scan)
    x = torch.rand(1, 1, *scan.shape, requires_grad=True)
    mean, _ = learned.encode_tensor(x, scan, cells)
    (gradient,) = torch.autograd.grad(mean[0, 0, 4, 4, 4], x)
    sees_mm = next(p.sees_mm for p in architecture.parts(learned, scan) if p.name == "Latent z")
    assert width(gradient) * 1.0 == pytest.approx(sees_mm, abs=2.0) and sees_mm < 36


def test_a_rendered_voxel_sees_what_the_drawing_says(learned):
    scan = Grid.from_spacing((52, 52, 52), 1.0)
    cells = learned.latent_grid(scan)
    z = torch.rand(1, 8, *cells.shape, requires_grad=True)
    image = learned.decode_tensor(z, cells, scan)
    (gradient,) = torch.autograd.grad(image[0, 0, 26, 26, 26], z)
    sees_mm = architecture.parts(learned, scan)[-1].sees_mm
    assert width(gradient) * 4.0 == pytest.approx(sees_mm, abs=4.0) and sees_mm < 52


@pytest.fixture(scope="module")
def svg() -> str:
    return architecture.drawing(MedIL(PRESETS["tiny"].model))


def test_the_drawing_has_a_box_for_every_part_and_takes_the_page_s_colours(svg):
    root = ElementTree.fromstring(svg)
    words = [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")]
    for part in architecture.parts(MedIL(PRESETS["tiny"].model)):
        assert part.name in words
    assert "1,032,192 numbers, 0.375 a voxel" in words
    assert not re.findall(r'(?:fill|stroke)="#', svg) and "var(--pst-color-text-base" in svg


def test_no_word_leaves_the_drawing_or_its_box(svg):
    for x, words in re.findall(r'<text[^>]* x="([\d.]+)"[^>]*>([^<]*)<', svg):
        right = architecture.RIGHT + 4 if float(x) < architecture.RIGHT else architecture.WIDTH
        assert float(x) + 5.6 * len(words) <= right, words


def test_the_closed_form_is_drawn_only_where_there_is_one(learned, svg):
    assert svg.count('class="way closed"') == 2
    assert "way closed" not in architecture.drawing(learned)


def test_files_of_the_release_are_written_again_and_again(tmp_path):
    for _ in range(2):
        drawn, table = architecture.write(tmp_path / "tables")
    assert drawn.read_text("utf-8").startswith('<svg class="architecture"')
    assert table.read_text("utf-8").count("{py:class}") == 7 and table.read_text(
        "utf-8"
    ).startswith(":::{table}")
