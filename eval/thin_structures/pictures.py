"""Pictures of this experiment: curves by radius, and airways along their own course."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from scipy import ndimage

from eval.thin_structures.measure import EDGES_MM
from eval.thin_structures.report import curve, limits_mm, name_of
from medil.grid import Grid
from medil.io.windows import ct_window
from medil.plots import COLOURS, panels
from medil.synth.phantom import Phantom

HALF_WIDTH_MM = 10.0  # of a view along an airway
PIXEL_MM = 0.25
Reader = Callable[[np.ndarray], np.ndarray]  # points [..., 3] in mm to values [...] in HU


def recall_curves(frame: pd.DataFrame, arms: Sequence[str], scans: Sequence[str]):
    """Recall by radius: a panel a scan, a line an arm with its band of 95 % over chests.

    Vertical lines: the radii of lumens as wide as the voxels in plane and as the latent allow.
    """
    figure, axes = panels(1, len(scans), panel_in=(4.2, 3.4))
    for ax, scan in zip(axes[0], scans, strict=True):
        for arm, colour in zip(arms, COLOURS, strict=False):
            found = curve(frame, arm, scan, "recall")
            if found:
                ax.fill_between(found.radius_mm, *found.band, color=colour, alpha=0.18, lw=0)
                ax.plot(found.radius_mm, found.means, "o-", ms=3, color=colour, label=name_of(arm))
        for (name, limit_mm), style in zip(limits_mm(scan).items(), (":", "--"), strict=True):
            ax.axvline(max(limit_mm, EDGES_MM[0]), color="#777777", lw=1, ls=style)
            ax.text(max(limit_mm, EDGES_MM[0]), 1.04, f" {name}", fontsize=7, ha="center")
        ax.axhline(0.5, color="#777777", lw=0.6)
        ax.set_xscale("log")
        ticks = [0.4, 0.6, 1, 2, 4, 8]
        ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        ax.minorticks_off()
        ax.set(ylim=(-0.03, 1.12), xlabel="radius of the lumen (mm)", title=scan)
    axes[0, 0].set_ylabel("share of lumens found")
    handles, titles = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, titles, loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    return figure


def course(phantom: Phantom, grid: Grid) -> list[dict]:
    """The airways from the widest to the narrowest along one path inside a grid."""
    branches = phantom.facts["branches"]
    low, high = grid.bounds_mm + 3.0 * np.array([[1], [-1]])

    def inside(branch: dict) -> bool:
        ends = np.array([branch["start_mm"], branch["end_mm"]])
        return bool(((ends > low) & (ends < high)).all())

    def path_to(branch: dict) -> list[dict]:
        path = [branch]
        while (parent := path[0]["parent"]) >= 0 and inside(branches[parent]):
            path.insert(0, branches[parent])
        return path

    paths = [path_to(branch) for branch in branches if inside(branch)]
    return max(paths, key=lambda path: path[0]["radius_mm"] / path[-1]["radius_mm"])


def straightened(path: Sequence[dict]) -> tuple[np.ndarray, np.ndarray]:
    """Points [L, W, 3] across a path of airways, and the radius [L] of the lumen along it."""
    rows, radii, before = [], [], np.array([1.0, 0.0, 0.0])
    for branch in path:
        start, end = np.array(branch["start_mm"]), np.array(branch["end_mm"])
        along = (end - start) / branch["length_mm"]
        sideways = np.cross(along, [0.0, 1.0, 0.0])
        sideways *= np.sign(sideways @ before or 1.0) / np.linalg.norm(sideways)
        before = sideways
        steps_mm = np.arange(0, branch["length_mm"], PIXEL_MM)[:, None, None]
        across_mm = np.arange(-HALF_WIDTH_MM, HALF_WIDTH_MM, PIXEL_MM)[None, :, None]
        rows.append(start + steps_mm * along + across_mm * sideways)
        radii.append(np.full(len(steps_mm), branch["radius_mm"]))
    return np.concatenate(rows), np.concatenate(radii)


def reader(data: np.ndarray, grid: Grid) -> Reader:
    """Reads a volume [D, H, W] at points, linearly between voxel centres."""

    def read(points_mm: np.ndarray) -> np.ndarray:
        index = grid.ras_to_index(points_mm.reshape(-1, 3)).T
        return ndimage.map_coordinates(data, index, order=1).reshape(points_mm.shape[:-1])

    return read


def true_reader(phantom: Phantom) -> Reader:
    """Reads a phantom itself at points."""
    return lambda points_mm: phantom(torch.from_numpy(points_mm)).numpy()


def along_airways(path: Sequence[dict], shown: Mapping[str, Reader]):
    """Airways straightened, from the widest at the top to the narrowest: a panel a volume.

    Both axes are in mm; each airway is cut in a plane through its own axis. Ticks at the left
    give the radius of the lumen.
    """
    points_mm, radii_mm = straightened(path)
    length_mm = len(radii_mm) * PIXEL_MM
    figure, axes = panels(1, len(shown), panel_in=(2.2, 5.2))
    low, high = ct_window("lung")
    for ax, (title, read) in zip(axes[0], shown.items(), strict=True):
        ax.imshow(
            read(points_mm), extent=(-HALF_WIDTH_MM, HALF_WIDTH_MM, length_mm, 0), origin="upper",
            interpolation="nearest", cmap="gray", vmin=low, vmax=high, aspect="equal",
        )  # fmt: skip
        ax.set(title=title, xlabel="mm", yticks=[])
    starts = np.flatnonzero(np.diff(radii_mm, prepend=0))
    ticks = [f"{radii_mm[start]:.1f}" for start in starts]
    axes[0, 0].set_yticks(starts * PIXEL_MM, ticks)
    axes[0, 0].set_ylabel("radius of the lumen from here on (mm)")
    return figure
