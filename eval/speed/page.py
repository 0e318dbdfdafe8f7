"""What the page on speed computes while it is built: the experiment, small."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from eval.speed import child, clock
from eval.speed.literal_forms import forms
from eval.speed.naive import naive_lte
from eval.speed.renderers import Scene, literal
from eval.speed.report import TITLES
from medil.grid import Grid
from medil.latent import Latent
from medil.model.autoencoder import MedIL
from medil.volume import Volume, save


@torch.inference_mode()
def forms_table(cells: int = 12, rounds: int = 3, device: str = "cpu") -> pd.DataFrame:
    """Literal LTE in its forms on a small cube, timed in turns.

    Args:
        cells: Feature cells an axis; 64 channels, twice as many voxels an axis.
        rounds: Of the clock.
        device: Of the layer.

    Returns:
        Renderer, ns a voxel, rounds, times faster than naive with its lowest and highest round,
        and the largest difference from naive in standard deviations.
    """
    scene, layer = Scene.drawn(cells, 64, device), literal(64, device=device)
    jobs = {"naive": scene.job(partial(naive_lte, layer))}
    jobs |= {name: scene.job(form) for name, form in forms(layer).items()}
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    times = clock.interleaved(jobs, rounds, wait=wait)
    truth = jobs["naive"]()
    lines = []
    for name, seconds in times.items():
        line = {
            "Renderer": TITLES[name],
            "ns a voxel": f"{clock.spread(seconds).median * 1e9 / truth.numel():,.0f}",
            "Rounds": str(rounds),
        }
        if name != "naive":
            faster = clock.ratios(times["naive"], seconds)
            apart = (jobs[name]() - truth).abs().max() / truth.std()
            line["Times faster"] = f"{faster.median:.2f}"
            line["Lowest to highest"] = f"{faster.low:.2f} to {faster.high:.2f}"
            line["Largest difference"] = f"{float(apart):.0e}"
        lines.append(line)
    return pd.DataFrame(lines).fillna("")


def parts_apart(model: MedIL, latent: Latent, grid: Grid, cut: int) -> dict[str, float]:
    """Is a part that is rendered alone the same part of the whole?

    Args:
        model: Renders.
        latent: Of a volume.
        grid: To render on.
        cut: Index along the first axis where it is cut in two.

    Returns:
        Largest difference between the two parts and the whole, and between the whole and
        slabs that follow each other along each axis, in standard deviations of the whole.
    """
    whole = model.decode(latent, grid).data
    first, last = (cut, *grid.shape[1:]), (grid.shape[0] - cut, *grid.shape[1:])
    parts = [grid.crop((0, 0, 0), first), grid.crop((cut, 0, 0), last)]
    joined = torch.cat([model.decode(latent, part).data for part in parts])
    scale = float(whole.std())
    found = {"two parts, each rendered alone": float((joined - whole).abs().max()) / scale}
    for axis in range(3):
        slabs = sorted(model.decode_slabs(latent, grid, axis=axis, descending=True),
                       key=lambda pair: pair[0])  # fmt: skip
        again = torch.cat([slab for _, slab in slabs], dim=axis)
        name = f"slabs along axis {axis}, from its end"
        found[name] = float((again - whole).abs().max()) / scale
    return found


def growth_table(
    crop: Volume, release: str, spacings_mm: tuple[float, ...], memory: str = ""
) -> pd.DataFrame:
    """`medil decode` of a crop at several voxel sizes, each in a process of its own.

    Args:
        crop: Is encoded once.
        release: Whose weights.
        spacings_mm: To render at.
        memory: Budget such as ``1GB``; none when empty.

    Returns:
        Voxel, voxels, size of the file, peak memory, and that beyond an idle process.
    """
    budget = ["--memory", memory] if memory else []
    lines = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scan = save(Volume(crop.data, crop.grid), folder / "crop.nii")
        latent, out = folder / "crop.safetensors", folder / "out.nii"
        verb = ["--preset", release, *budget]
        child.measured("command", 1, arguments=["encode", str(scan), "-o", str(latent), *verb])
        idle_mb = child.measured("idle", 1)["peak_rss_mb"]
        for spacing in spacings_mm:
            size = ["--spacing", *[str(spacing)] * 3]
            arguments = ["decode", str(latent), "-o", str(out), *size, *verb]
            run = child.measured("command", 1, arguments=arguments)
            voxels = crop.grid.with_spacing(spacing).n_voxels
            lines.append(
                {
                    "Voxel (mm)": f"{spacing:g}",
                    "Voxels": f"{voxels:,}",
                    "File (MB)": f"{out.stat().st_size / child.MB:,.1f}",
                    "Peak memory (MB)": f"{run['peak_rss_mb']:,.0f}",
                    "Beyond an idle process (MB)": f"{run['peak_rss_mb'] - idle_mb:,.0f}",
                }
            )
            out.unlink()
    return pd.DataFrame(lines)


# Phasors


def direct_waves(f: np.ndarray, phase: np.ndarray, deltas: tuple[np.ndarray, ...]) -> np.ndarray:
    """exp(i pi (f . delta + phase)) at every point of a small grid, straight from the formula.

    Args:
        f: [K, 3] frequencies of one cell, half-cycles a cell.
        phase: [K].
        deltas: Three of [n], distances from the cell along each axis, in cells.

    Returns:
        [K, n_x, n_y, n_z], complex.
    """
    x, y, z = np.meshgrid(*deltas, indexing="ij")
    angle = np.tensordot(f, np.stack([x, y, z]), axes=1) + phase[:, None, None, None]
    return np.exp(1j * np.pi * angle)
