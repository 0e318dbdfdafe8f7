"""The picture on the first page: one held-out scan, encoded once, rendered on four grids.

    python -m eval.pictures.hero

writes ``book/_static/hero.png`` from the release and a scan of the test split (MNI152
where none is available). Voxels are shown as they are, so their size can be seen.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from eval.rows import spacing_text
from eval.subjects import Scan, Subject, subjects
from medil.errors import InputError
from medil.grid import Grid
from medil.model.autoencoder import MedIL
from medil.model.weights import load_release
from medil.plots import draw_plane, panels
from medil.system.files import atomic_output
from medil.volume import Volume

HERO = Path("book/_static/hero.png")
RENDERED_MM = (0.5, 2.0)
PLANE, CUT = "coronal", 1  # the plane shown, and the voxel axis that it cuts
ZOOM_MM = 18.0  # half width of the lower row


def slab(grid: Grid, point_mm: np.ndarray) -> Grid:
    """The one plane of a grid that holds a point: all a picture needs to render."""
    index = int(np.clip(np.rint(grid.ras_to_index(point_mm)[CUT]), 0, grid.shape[CUT] - 1))
    start, shape = [0, 0, 0], list(grid.shape)
    start[CUT], shape[CUT] = index, 1
    return grid.crop(start, shape)


def point_of_interest(volume: Volume, mask: np.ndarray) -> np.ndarray:
    """[3] (R, A, S) mm: in the mask's middle coronal plane, half way out to the right and up.

    There the cortex folds, which the middle itself misses.
    """
    middle, (_, high) = np.argwhere(mask).mean(axis=0), mask_ends(mask)
    middle[[0, 2]] += (high - middle)[[0, 2]] / 2
    return volume.grid.index_to_ras(np.rint(middle))


def panels_of(model: MedIL, volume: Volume, point_mm: np.ndarray) -> list[tuple[str, Volume]]:
    """Title and plane: the scan, then the model on its grid and on those of `RENDERED_MM`."""
    latent = model.encode(volume)
    native = slab(volume.grid, point_mm)
    index = int(np.rint(volume.grid.ras_to_index(native.centre_mm)[CUT]))
    plane = volume.data.narrow(CUT, index, 1)
    spacing = spacing_text(volume.grid)
    shown = [
        (f"scan, {spacing} mm", Volume(plane, native)),
        (f"MedIL, {spacing} mm", model.decode(latent, native)),
    ]
    for spacing_mm in RENDERED_MM:
        grid = slab(volume.grid.with_spacing(spacing_mm), point_mm)
        shown.append((f"MedIL, {spacing_mm:g} mm", model.decode(latent, grid)))
    return shown


def hero(model: MedIL, subject: Subject):
    """The figure: each panel's whole plane above, a detail of it below."""
    scan = subject.load()
    point_mm, window = point_of_interest(scan.volume, scan.mask), window_inside(scan)
    shown = panels_of(model, scan.volume, point_mm)
    figure, axes = panels(2, len(shown))
    middle = along_axes_mm(scan.volume.grid, point_mm)
    ends = [scan.volume.grid.index_to_ras(e) for e in mask_ends(scan.mask)]
    low, high = (along_axes_mm(scan.volume.grid, end) for end in ends)
    for column, (title, volume) in enumerate(shown):
        for row in (0, 1):
            draw_plane(axes[row, column], volume, PLANE, in_plane(volume.grid, point_mm), window)
        axes[0, column].set_title(title)
        axes[0, column].set(xlim=(low[0] - 4, high[0] + 4), ylim=(low[2] - 4, high[2] + 4))
        for limit, axis in ((axes[1, column].set_xlim, 0), (axes[1, column].set_ylim, 2)):
            limit(middle[axis] - ZOOM_MM, middle[axis] + ZOOM_MM)
        for row in (0, 1):
            axes[row, column].label_outer()
    return figure


def window_inside(scan: Scan) -> tuple[float, float]:
    """Black and white of the display: 1st and 99.8th percentile inside the mask."""
    low, high = np.percentile(scan.volume.data.double().numpy()[scan.mask], (1, 99.8))
    return float(low), float(high)


def mask_ends(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[3] lowest and [3] highest voxel index of a mask."""
    where = np.argwhere(mask)
    return where.min(axis=0), where.max(axis=0)


def along_axes_mm(grid: Grid, point_mm: np.ndarray) -> np.ndarray:
    """[3] a point's coordinates along a grid's own axes, in mm: what the panels' axes count."""
    return grid.directions.T @ point_mm


def in_plane(grid: Grid, point_mm: np.ndarray) -> np.ndarray:
    """[3] (R, A, S) mm: the point moved, by half a voxel at most, into a one-plane grid."""
    index_vox = np.clip(grid.ras_to_index(point_mm), 0, np.asarray(grid.shape) - 1)
    return grid.index_to_ras(index_vox)


def choose(part: str) -> Subject:
    """The first available held-out subject whose name holds a text.

    Raises:
        InputError: None does; the message lists those there are.
    """
    people = subjects("quick")
    for subject in people:
        if part in subject.name:
            return subject
    names = ", ".join(s.name for s in people)
    raise InputError(f"no available subject is called {part!r}; there are: {names}.")


def main(arguments: list[str] | None = None) -> int:
    """The command line; 0, or 2 after one sentence about what is missing."""
    parser = argparse.ArgumentParser(prog="python -m eval.pictures.hero", description=__doc__)
    parser.add_argument("--release", default="tiny", help="which released weights (tiny)")
    parser.add_argument("--subject", default="", help="part of a subject's name (the first)")
    parser.add_argument("--out", type=Path, default=HERO, help="the picture")
    options = parser.parse_args(arguments)
    try:
        subject = choose(options.subject)
        figure = hero(load_release(options.release), subject)
        with atomic_output(options.out, force=True) as temporary:
            figure.savefig(temporary, dpi=130)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{options.out}: {subject.name}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
