"""What the page on speed computes while it is built: the experiment, small."""

from __future__ import annotations

from operator import itemgetter

import numpy as np
import pandas as pd
import torch

from eval.speed import child, rendering, whole
from eval.speed.renderers import Scene, peers
from eval.speed.report import TITLES
from eval.speed.timing import Plan
from medil.grid import Grid
from medil.latent import Latent
from medil.model.autoencoder import MedIL
from medil.volume import Volume


@torch.inference_mode()
def forms_table(cells: int = 12, rounds: int = 3, device: str = "cpu") -> pd.DataFrame:
    """Time literal LTE in its forms, in turns, on a cube of `cells`^3 x 64 channels.

    ns per voxel, speed-up over naive with its lowest and highest round, and the largest
    difference from naive in standard deviations.
    """
    integrated = Scene.drawn(cells, 32, device).job(peers(32, device)["integrated"])
    plan = Plan(device=device, cells=cells, rounds_slow=rounds)
    lines = []
    for timing in rendering.literal_forms(plan, integrated)[0]:
        line = {
            "Renderer": TITLES[timing.arm],
            "ns a voxel": f"{np.median(timing.values['ns_per_voxel']):,.0f}",
            "Rounds": str(rounds),
        }
        if timing.arm != rendering.NAIVE:
            faster = timing.values["ratio_to_naive"]
            line["Times faster"] = f"{np.median(faster):.2f}"
            line["Lowest to highest"] = f"{np.min(faster):.2f} to {np.max(faster):.2f}"
            line["Largest difference"] = f"{timing.values['max_difference']:.0e}"
        lines.append(line)
    return pd.DataFrame(lines).fillna("")


def parts_apart(model: MedIL, latent: Latent, grid: Grid, cut: int) -> dict[str, float]:
    """Largest difference between parts rendered alone and the whole, in its standard deviations.

    The grid is cut in two at index `cut` of the first axis, and rendered in slabs along each axis.
    """
    field = model.field(latent, precision="float32")
    whole = field.on(grid).data
    first, last = (cut, *grid.shape[1:]), (grid.shape[0] - cut, *grid.shape[1:])
    parts = [grid.crop((0, 0, 0), first), grid.crop((cut, 0, 0), last)]
    joined = torch.cat([field.on(part).data for part in parts])
    again = {"two parts, each rendered alone": joined}
    for axis in range(3):
        slabs = sorted(field.slabs(grid, axis, descending=True), key=itemgetter(0))
        joined = torch.cat([slab for _, slab in slabs], dim=axis)
        again[f"slabs along axis {axis}, from its end"] = joined
    return {name: float((v - whole).abs().max() / whole.std()) for name, v in again.items()}


def growth_table(
    crop: Volume, release: str, spacings_mm: tuple[float, ...], memory: str = ""
) -> pd.DataFrame:
    """`medil decode` of a crop at several voxel sizes, each in a process of its own.

    `memory` is a budget such as ``1GB``; none when empty.
    """
    with whole.on_disk(crop, "crop", release) as brain:
        timings = whole.growth(brain, spacings_mm, 1, memory)
    idle_mb = child.run_job("idle", 1)["peak_rss_mb"]
    return pd.DataFrame(
        {
            "Voxel (mm)": t.spacing_out_mm,
            "Voxels": f"{t.n_voxels:,}",
            "File (MB)": f"{4 * t.n_voxels / child.MB:,.1f}",  # float32
            "Peak memory (MB)": f"{t.values['peak_rss_mb']:,.0f}",
            "Beyond an idle process (MB)": f"{t.values['peak_rss_mb'] - idle_mb:,.0f}",
        }
        for t in timings
    )


# Phasors


def direct_waves(f: np.ndarray, phase: np.ndarray, deltas: tuple[np.ndarray, ...]) -> np.ndarray:
    """[K, n_x, n_y, n_z] exp(i pi (f . delta + phase)), straight from the formula.

    `f` is [K, 3] in half-cycles per cell, `phase` [K]; `deltas` are distances in cells per axis.
    """
    x, y, z = np.meshgrid(*deltas, indexing="ij")
    angle = np.tensordot(f, np.stack([x, y, z]), axes=1) + phase[:, None, None, None]
    return np.exp(1j * np.pi * angle)
