"""Operations and bytes of the renderers, counted from their definitions."""

from __future__ import annotations

from torch import nn

from eval.speed.ceilings import Work
from eval.speed.renderers import Scene
from medil.layers.operators import IntegratedLTE
from medil.layers.pointwise import LiteralLTE
from medil.layers.projection import work

FLOAT_BYTES = 4


def integrated_work(scene: Scene, operator: IntegratedLTE) -> Work:
    """`medil.layers.projection.work` of a layer with one channel out, on a scene."""
    channels = scene.features.shape[1]
    return Work(*work(operator.basis, scene.nodes, scene.voxels, channels))


def literal_work(scene: Scene, layer: LiteralLTE) -> Work:
    """A voxel's share of the coefficient maps, and eight neighbours' waves and MLPs.

    Any renderer that keeps the definition pays for the MLPs; the waves are counted as one
    product of two complex phasors a frequency, which is what separability leaves. Bytes: the
    features are read, the maps written and read, the voxels written, once each, in float32.

    Args:
        scene: Features and grids.
        layer: Gives the widths.

    Returns:
        Operations and bytes a voxel.
    """
    maps = (layer.amplitude, layer.frequency)
    weights = sum(m.weight.numel() for m in maps)
    rows = sum(m.out_channels for m in maps)
    linear = [m for m in layer.mlp if isinstance(m, nn.Linear)]
    waves = 3 * linear[0].in_features  # a complex product: 6 operations for a cosine and a sine
    each = 2 * sum(m.weight.numel() for m in linear) + waves
    share = scene.nodes.n_voxels / scene.voxels.n_voxels
    numbers = share * (scene.features.shape[1] + 2 * rows) + 1
    return Work(2.0 * weights * share + 8 * each, FLOAT_BYTES * numbers)
