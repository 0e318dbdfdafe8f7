"""Pictures of what a code loses: errors beside what was rebuilt, and spectra of both.

Panels that are compared share one point, one field of view and one window, as in
`medil.plots`, which draws them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from eval.pictures.hero import in_plane
from medil.errors import InputError
from medil.plots import COLOURS, PLANES, draw_plane, panels, radial_power
from medil.volume import Volume

Window = tuple[float, float]


def rebuilt_and_errors(
    truth: Volume, rebuilt: Mapping[str, Volume], point_mm: np.ndarray, window: Window, plane: str
):
    """Each rebuilt volume and, below it, its signed error, in one symmetric window.

    `window` is black and white of the upper row; a colour bar of the errors is at the left.

    Raises:
        InputError: A volume on another grid than the truth's.
    """
    if not all(truth.grid.is_close(v.grid) for v in rebuilt.values()):
        raise InputError("errors are shown on the truth's grid; render each volume on it first.")
    errors = [Volume(v.data.double() - truth.data.double(), truth.grid) for v in rebuilt.values()]
    limit = float(np.percentile(np.abs([e.data.numpy() for e in errors]), 99.5)) or 1.0
    figure, axes = panels(2, 1 + len(rebuilt), panel_in=(2.4, 2.8))
    for column, (title, volume) in enumerate({"as scanned": truth, **rebuilt}.items()):
        draw_plane(axes[0, column], volume, plane, point_mm, window)
        axes[0, column].set_title(title)
    for ax, error in zip(axes[1, 1:], errors, strict=True):
        image = draw_plane(ax, error, plane, point_mm, (-limit, limit), colours="PuOr_r")
    for ax in axes.flat:
        ax.label_outer()
        _outline(ax)
    axes[1, 0].axis("off")
    place = axes[1, 0].inset_axes((0.62, 0.08, 0.07, 0.84))
    bar = figure.colorbar(image, cax=place, extend="both")
    place.yaxis.set_ticks_position("left")
    place.yaxis.set_label_position("left")
    bar.set_label("error: rebuilt − scanned\n(intensity)")
    return figure


def planes_on_grids(
    volumes: Mapping[str, Volume],
    point_mm: np.ndarray,
    window: Window,
    plane: str,
    columns: int = 3,
    half_width_mm: float | None = None,
):
    """One plane of volumes on many grids, each at its true place, in rows of `columns`.

    `point_mm` (R, A, S) is moved into volumes that end before it. The view spans
    `half_width_mm` around the point; all of the first volume when None.
    """
    first = next(iter(volumes.values())).grid
    _, across, up = PLANES[plane]
    width_in = 2.9 if columns < 4 else 2.5
    tall = 1.0 if half_width_mm else first.extent_mm[up] / first.extent_mm[across]
    panel_in = (width_in, (width_in - 0.4) * tall + 0.5)
    figure, axes = panels(-(-len(volumes) // columns), columns, panel_in=panel_in)
    middle_mm = first.directions.T @ (first.centre_mm if half_width_mm is None else point_mm)
    for ax, (title, volume) in zip(axes.flat, volumes.items(), strict=False):
        draw_plane(ax, volume, plane, in_plane(volume.grid, np.asarray(point_mm)), window)
        ax.set_title(title)
        for axis, limit in ((across, ax.set_xlim), (up, ax.set_ylim)):
            half_mm = half_width_mm or first.extent_mm[axis] / 2
            limit(middle_mm[axis] - half_mm, middle_mm[axis] + half_mm)
        ax.label_outer()
        _outline(ax)
    for ax in axes.flat[len(volumes) :]:
        ax.axis("off")
    return figure


def tapered(volume: Volume) -> Volume:
    """A volume that fades to its mean at its faces (Hann window), for spectra.

    Without it the faces of a crop are steps, whose power hides that of the finest detail.
    """
    values = volume.data.double().numpy()
    fade = np.ones(())
    for n in values.shape:
        fade = fade[..., None] * np.hanning(n + 2)[1:-1]
    mean = float((values * fade).sum() / fade.sum())
    return Volume(torch.from_numpy((values - mean) * fade), volume.grid)


def share_lost(truth: Volume, rebuilt: Volume) -> tuple[np.ndarray, np.ndarray]:
    """[n] frequency in cycles/mm and [n] power of the error over power of the truth, by shell.

    0 where nothing is lost, 1 where nothing is kept, above 1 where zero would be closer.
    """
    error = Volume(rebuilt.data.double() - truth.data.double(), truth.grid)
    frequency, of_error = radial_power(tapered(error))
    _, of_truth = radial_power(tapered(truth))
    return frequency, of_error / of_truth


def spectra_and_loss(
    truth: Volume, rebuilt: Mapping[str, Volume], marks: Mapping[str, float] | None = None
):
    """Power of the truth and of rebuilt volumes (left), and the share each has lost (right).

    `marks` maps a label to a frequency in cycles/mm, drawn as a dotted line.
    """
    figure, axes = panels(1, 2, panel_in=(4.3, 3.4))
    power, lost = axes[0]
    frequency_per_mm, of_truth = radial_power(tapered(truth))
    power.semilogy(frequency_per_mm, of_truth, color="black", lw=2.2, label="as scanned")
    for colour, (title, volume) in zip(COLOURS, rebuilt.items(), strict=False):
        power.semilogy(*radial_power(tapered(volume)), color=colour, lw=1.5, label=title)
        lost.plot(*share_lost(truth, volume), color=colour, lw=1.5, label=title)
    lost.axhline(1, color="black", lw=0.8)
    for ax in (power, lost):
        for name, frequency in (marks or {}).items():
            ax.axvline(frequency, color="0.45", ls=":", lw=1)
            ax.text(
                frequency, 0.98, name, rotation=90, transform=ax.get_xaxis_transform(),
                va="top", ha="right", color="0.35", fontsize=8,
            )  # fmt: skip
        ax.set(xlabel="spatial frequency (cycles/mm)", xlim=(0, 0.5 / max(truth.grid.spacing_mm)))
    power.set(ylabel="power density (intensity² mm³)", ylim=(of_truth.min() / 1e3, None))
    lost.set(ylabel="share of the power lost", ylim=(0, 1.4))
    power.legend(frameon=False, fontsize=8)
    return figure


def search_curve(history: Sequence[float], levels: Mapping[str, float], y_label: str):
    """An error after each step of a search, beside constant errors drawn as dashed lines."""
    figure, axes = panels(1, 1, panel_in=(5.6, 3.2))
    ax = axes[0, 0]
    ax.plot(history, color=COLOURS[0], lw=2.2, label="the search")
    for colour, (name, value) in zip(COLOURS[1:], levels.items(), strict=False):
        ax.axhline(value, color=colour, ls="--", lw=1.3, label=name)
    top = max([*history, *levels.values()])
    ax.set(xlabel="step of the search", ylabel=y_label, xlim=(0, None), ylim=(0, 1.08 * top))
    ax.legend(frameon=False, loc="lower right")
    return figure


def _outline(ax) -> None:
    """Letters over an image in white, outlined in black: readable on any grey."""
    from matplotlib.patheffects import withStroke

    for text in ax.texts:
        text.set(color="white", path_effects=[withStroke(linewidth=2, foreground="black")])
