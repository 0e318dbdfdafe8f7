"""Pictures of volumes in millimetres: planes, signed errors, spectra.

Every panel shows the voxels as they are (nearest neighbour) at their true size, Right on
the right. Panels that are compared share one point, one field of view and one intensity
window. Each function returns a matplotlib figure; drawing it is up to the caller.

Example:
    >>> from medil import Grid, Volume, plots
    >>> scan = Volume(torch.rand(8, 8, 8), Grid.from_spacing((8, 8, 8), 1.0))
    >>> figure = plots.compare([scan, scan], ["one", "two"], planes=["axial"])
    >>> [panel.get_title() for panel in figure.axes]
    ['one', 'two']
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from medil.errors import InputError, needs
from medil.grid import Grid
from medil.io.windows import ct_window
from medil.training.patches import Step
from medil.volume import Volume

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

Window = tuple[float, float]

# Okabe and Ito's colours: told apart by colour-blind readers, on white and on grey.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STYLE: dict[Any, Any] = {
    "figure.facecolor": "white",  # also in the book's dark mode: labels stay readable
    "figure.dpi": 110,
    "savefig.dpi": 110,
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "image.cmap": "gray",
    "image.interpolation": "nearest",
    "image.origin": "lower",
}


class Plane(NamedTuple):
    """The voxel axis that a plane cuts, and the axes that it shows across and up."""

    cut: int
    across: int
    up: int


PLANES = {"sagittal": Plane(0, 1, 2), "coronal": Plane(1, 0, 2), "axial": Plane(2, 0, 1)}
ENDS = (("L", "R"), ("P", "A"), ("I", "S"))


def panels(
    rows: int, columns: int, panel_in: tuple[float, float] = (2.7, 2.7)
) -> tuple[Figure, Any]:
    """A figure of empty panels in the book's style, and its axes as a [rows, columns] array.

    Raises:
        InputError: matplotlib is not installed.
    """
    with needs("plots", "pictures need matplotlib"):
        from matplotlib import pyplot
    with pyplot.rc_context({**STYLE, "axes.prop_cycle": pyplot.cycler(color=COLOURS)}):
        size_in = (columns * panel_in[0], rows * panel_in[1])
        figure, axes = pyplot.subplots(
            rows, columns, figsize=size_in, squeeze=False, layout="constrained"
        )
    pyplot.close(figure)  # or a notebook shows it twice: as open, and as the cell's value
    return figure, axes


def window_of(volume: Volume) -> Window:
    """The 0.5th and 99.5th percentiles of a volume: black and white for display."""
    values = volume.data.detach().to(torch.float64).cpu().numpy()
    low, high = np.nanpercentile(values, (0.5, 99.5))
    return float(low), float(high if high > low else low + 1)


def compare(
    volumes: Sequence[Volume],
    titles: Sequence[str],
    point_mm: Sequence[float] | None = None,
    window: Window | str | None = None,
    planes: Sequence[str] = tuple(PLANES),
    half_width_mm: float | None = None,
) -> Figure:
    """Volumes on any grids, cut at one point, in one window and one field of view.

    One plane: the volumes stand side by side. Several: planes across, volumes down.

    Args:
        volumes: The volumes; their grids may differ.
        titles: One per volume.
        point_mm: (R, A, S) in mm; the middle of the first volume when None.
        window: Shared by all panels: (low, high), or the name of a CT window; `window_of` the
            first volume when None.
        planes: Any of sagittal, coronal and axial.
        half_width_mm: Show only this far around the point, in mm; all when None.

    Raises:
        InputError: Not one title per volume, an unknown plane, or a point outside a volume.
    """
    _check(volumes, titles, planes)
    point = np.asarray(volumes[0].grid.centre_mm if point_mm is None else point_mm, dtype=float)
    window = window or window_of(volumes[0])
    figure, axes = _panel_for_each(volumes, planes)
    for row, (volume, title) in enumerate(zip(volumes, titles, strict=True)):
        for column, name in enumerate(planes):
            ax = axes[row, column]
            draw_plane(ax, volume, name, point, window)
            _limit(ax, [v.grid for v in volumes], name, point, half_width_mm)
            _name_panel(ax, title, name, of_several=len(planes) > 1)
    return figure


def error_maps(
    truth: Volume,
    estimates: Sequence[Volume],
    titles: Sequence[str],
    point_mm: Sequence[float] | None = None,
    limit: float | None = None,
    planes: Sequence[str] = tuple(PLANES),
) -> Figure:
    """Estimate minus truth, in colours that are symmetric about zero, with one colour bar.

    Args:
        truth: The true volume.
        estimates: Estimates of it, each on the grid of `truth`.
        titles: One per estimate.
        point_mm: (R, A, S) in mm; the middle of the volume when None.
        limit: Error with the strongest colour, in intensity units; when None, the 99.5th
            percentile of all the absolute errors.
        planes: Any of sagittal, coronal and axial.

    Raises:
        InputError: An estimate on another grid than the truth, or what `compare` refuses.
    """
    _check(estimates, titles, planes)
    if not all(truth.grid.is_close(estimate.grid) for estimate in estimates):
        raise InputError("errors are shown on the truth's grid; render each estimate on it first.")
    point = np.asarray(truth.grid.centre_mm if point_mm is None else point_mm, dtype=float)
    errors = [Volume(e.data.double() - truth.data.double(), truth.grid) for e in estimates]
    limit = limit or max(_largest(error.data) for error in errors) or 1.0
    figure, axes = _panel_for_each(errors, planes)
    for row, (error, title) in enumerate(zip(errors, titles, strict=True)):
        for column, name in enumerate(planes):
            ax = axes[row, column]
            image = draw_plane(ax, error, name, point, (-limit, limit), colours="PuOr_r")
            _name_panel(ax, title, name, of_several=len(planes) > 1)
    bar = figure.colorbar(image, ax=axes, shrink=0.7, extend="both")
    bar.set_label("estimate − truth (intensity)")
    return figure


def spectra(volumes: Sequence[Volume], titles: Sequence[str]) -> Figure:
    """Radial power spectra in cycles per mm, each up to its own finest Nyquist frequency.

    Volumes that share an extent can be compared directly. A dotted line marks where each grid's
    coarsest axis ends.

    Raises:
        InputError: Not one title per volume.
    """
    _check(volumes, titles, ())
    figure, axes = panels(1, 1, panel_in=(6.5, 3.6))
    ax = axes[0, 0]
    for index, (volume, title) in enumerate(zip(volumes, titles, strict=True)):
        frequency, power = radial_power(volume)
        colour = COLOURS[index % len(COLOURS)]
        ax.loglog(frequency, power, label=title, color=colour, lw=1.6)
        ax.axvline(0.5 / max(volume.grid.spacing_mm), color=colour, ls=":", lw=1)
    ax.set(xlabel="spatial frequency (cycles/mm)", ylabel="power density (intensity² mm³)")
    ax.legend(frameon=False)
    return figure


def radial_power(volume: Volume, n_bins: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """Power density averaged over shells of equal |frequency|, the volume's mean removed.

    The density does not depend on the voxel size: a signal that two grids of one extent
    both hold has the same curve on both. Shells past the coarsest axis's Nyquist
    frequency average over the directions that the grid still has.

    Args:
        volume: Any volume.
        n_bins: Shells between zero and the finest axis's Nyquist frequency.

    Returns:
        [n] frequency in cycles/mm and [n] power in intensity² mm³, empty shells left out.
    """
    values = volume.data.detach().double().cpu().numpy()
    spacing_mm = volume.grid.spacing_mm
    scale = np.prod(spacing_mm) / values.size
    density = np.abs(np.fft.fftn(values - values.mean())) ** 2 * scale  # [D, H, W]
    axes = [np.fft.fftfreq(n, mm) for n, mm in zip(values.shape, spacing_mm, strict=True)]
    radius = np.sqrt(sum(f**2 for f in np.meshgrid(*axes, indexing="ij", sparse=True)))
    edges = np.linspace(0, 0.5 / min(spacing_mm), n_bins + 1)
    count, _ = np.histogram(radius, edges)
    total, _ = np.histogram(radius, edges, weights=density)
    frequency, _ = np.histogram(radius, edges, weights=radius)
    kept = (count > 0) & (frequency > 0)  # without the mean, which a logarithm cannot show
    return frequency[kept] / count[kept], total[kept] / count[kept]


def training_steps(steps: Mapping[str, Step]) -> Figure:
    """The input of training steps: the middle plane of each, with the borders of its latent cells.

    Of each batch the first image is shown. Steps are turned and mirrored at random, so their axes
    are first, second and third, in mm of the step's own frame, and no side is Left.
    """
    figure, axes = panels(1, len(steps), panel_in=(3.1, 3.1))
    for ax, (title, step) in zip(axes[0], steps.items(), strict=True):
        shown = Volume(step.x[0, 0], step.grid)
        draw_plane(ax, shown, "axial", step.grid.centre_mm, (0.0, 1.0))
        for text in list(ax.texts):
            text.remove()
        for axis, draw in ((0, ax.axvline), (1, ax.axhline)):
            for face_mm in cell_faces_mm(step.latent_grid, axis):
                draw(face_mm, color=COLOURS[4], lw=0.9, alpha=0.9)
        ax.set(xlabel="first axis (mm)", ylabel="second axis (mm)", title=title)
        ax.set_xlim(_faces_mm(step.latent_grid, 0))
        ax.set_ylim(_faces_mm(step.latent_grid, 1))
    return figure


def cell_faces_mm(grid: Grid, axis: int) -> np.ndarray:
    """[n + 1] positions of the faces between cells along one axis, in mm."""
    return np.linspace(*_faces_mm(grid, axis), grid.shape[axis] + 1)


def draw_plane(
    ax: Axes,
    volume: Volume,
    plane: str,
    point_mm: np.ndarray,
    window: Window | str,
    colours: str = "gray",
) -> AxesImage:
    """Draw one plane of voxels into a panel, at true position and size, and return the image.

    It shows the voxel that holds the point (R, A, S) in mm; the ends of the window, two numbers or
    the name of a CT window, get the first and last colour. The volume's voxel axes i, j, k run
    roughly along R, A, S.

    Raises:
        InputError: The point lies outside the volume.
    """
    cut, across, up = PLANES[plane]
    low, high = ct_window(window) if isinstance(window, str) else window
    index_vox = _voxel_holding(volume.grid, point_mm)
    shown = volume.data.select(cut, int(index_vox[cut])).detach().cpu().numpy()
    extent_mm = (*_faces_mm(volume.grid, across), *_faces_mm(volume.grid, up))
    image = ax.imshow(
        shown.T,
        extent=extent_mm,
        origin="lower",
        interpolation="nearest",
        cmap=colours,
        vmin=low,
        vmax=high,
        aspect="equal",
    )
    from matplotlib.patheffects import withStroke

    (left, right), (below, above) = ENDS[across], ENDS[up]
    outline = [withStroke(linewidth=2, foreground="black" if colours == "gray" else "white")]
    ax.set(xlabel=f"{left} – {right} (mm)", ylabel=f"{below} – {above} (mm)")
    for x, end in ((0.03, left), (0.97, right)):
        ax.text(
            x, 0.5, end, transform=ax.transAxes, ha="left" if x < 0.5 else "right", va="center",
            color="#E69F00" if colours == "gray" else "black", weight="bold", fontsize=9,
            path_effects=outline,
        )  # fmt: skip
    return image


def _voxel_holding(grid: Grid, point_mm: np.ndarray) -> np.ndarray:
    index_vox = np.floor(grid.ras_to_index(point_mm) + 0.5).astype(int)
    # A point on the outermost face belongs to the last voxel.
    on_face = np.isclose(grid.ras_to_index(point_mm) + 0.5, grid.shape)
    index_vox = np.where(on_face, np.asarray(grid.shape) - 1, index_vox)
    if (index_vox < 0).any() or (index_vox >= grid.shape).any():
        place = ", ".join(f"{value:g}" for value in point_mm)
        raise InputError(f"the point ({place}) mm lies outside the volume; choose one inside.")
    return index_vox


def _faces_mm(grid: Grid, axis: int) -> Window:
    """Positions of the two outer faces along one voxel axis, in mm along that axis.

    For an axis that points to Right, Anterior or Superior these are world coordinates;
    for an oblique one, distances along it from the world's origin.
    """
    middle_mm = float(grid.directions[:, axis] @ grid.centre_mm)
    half_mm = grid.extent_mm[axis] / 2
    return middle_mm - half_mm, middle_mm + half_mm


def _limit(
    ax: Axes, grids: Sequence[Grid], plane: str, point: np.ndarray, half_mm: float | None
) -> None:
    _, across, up = PLANES[plane]
    for axis, set_limit in ((across, ax.set_xlim), (up, ax.set_ylim)):
        faces = np.array([_faces_mm(grid, axis) for grid in grids])
        middle = float(grids[0].directions[:, axis] @ point)
        whole = (faces[:, 0].min(), faces[:, 1].max())
        set_limit(whole if half_mm is None else (middle - half_mm, middle + half_mm))


def _panel_for_each(volumes: Sequence[Volume], planes: Sequence[str]) -> tuple[Figure, Any]:
    """A figure and its axes, indexed [volume, plane]; one plane is laid out in a row."""
    if len(planes) == 1:
        figure, axes = panels(1, len(volumes))
        return figure, axes.T
    return panels(len(volumes), len(planes))


def _name_panel(ax: Axes, title: str, plane: str, of_several: bool) -> None:
    ax.set_title(f"{title}\n{plane}".strip() if of_several and title else title or plane)


def _largest(values: Tensor) -> float:
    return float(np.percentile(values.abs().cpu().numpy(), 99.5))


def _check(volumes: Sequence[Volume], titles: Sequence[str], planes: Sequence[str]) -> None:
    if not volumes or len(volumes) != len(titles):
        raise InputError(f"{len(volumes)} volumes need as many titles, not {len(titles)}.")
    if unknown := set(planes) - set(PLANES):
        raise InputError(f"planes are {', '.join(PLANES)}, not {', '.join(sorted(unknown))}.")
