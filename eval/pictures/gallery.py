"""The picture of sixteen sampled heads, each above the tissue map that it was given.

    python -m eval.pictures.gallery

writes ``book/_static/samples.png`` from the released anatomy-first sampler. Seeds are 0 to 15, none
left out. The file names the weights that drew it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from tqdm import tqdm

from eval.pictures.hero import CUT, slab
from medil.anatomy.classes import CLASSES, LabelMap
from medil.diffusion.anatomies import drawn_anatomy
from medil.diffusion.anatomy_first import covariates_of, sample_latent
from medil.diffusion.appearance import AppearanceFlow
from medil.diffusion.appearance_training import load_appearance_release
from medil.errors import InputError
from medil.model.autoencoder import MedIL
from medil.model.weights import load_release, short_digest
from medil.plots import panels
from medil.system.files import atomic_output
from medil.volume import Volume

GALLERY = Path("book/_static/samples.png")
SEEDS, COLUMNS = range(16), 8
COLOURS = dict(zip(CLASSES, (
    "black", "steelblue", "indianred", "white", "sandybrown", "khaki", "mediumpurple", "plum",
    "seagreen", "cyan", "darkturquoise",
), strict=True))  # fmt: skip
COLOUR_MAP = ListedColormap(list(COLOURS.values()))
WINDOW = (0.0, 1.0)
Pair = tuple[Volume, LabelMap]  # one plane of a scan, and of its map


def pairs(flow: AppearanceFlow, model: MedIL, seeds: Sequence[int]) -> Iterator[Pair]:
    """The coronal plane through the middle of each sampled head, at 1 mm, and its map."""
    for seed in seeds:
        anatomy = drawn_anatomy(seed)
        latent = sample_latent(flow, model, anatomy, seed, covariates_of(flow))
        middle = np.argwhere(anatomy.tissues.labels.numpy()).mean(axis=0)
        plane = slab(anatomy.native, anatomy.tissues.grid.index_to_ras(np.rint(middle)))
        tissues = anatomy.tissues.resampled(plane)
        scan = model.field(latent).on(plane)
        yield Volume(scan.data * (tissues.labels > 0), plane), tissues


def gallery(drawn: Sequence[Pair], columns: int = COLUMNS) -> Figure:
    """The figure: rows of scans, each above a row of the maps that they were given."""
    rows = 2 * -(-len(drawn) // columns)
    figure, axes = panels(rows, columns, panel_in=(1.25, 1.25))
    for ax in np.ravel(axes):
        ax.set_axis_off()
    for k, (scan, tissues) in enumerate(drawn):
        row, column = 2 * (k // columns), k % columns
        show(axes[row, column], scan.data.numpy(), cmap="gray", vmin=WINDOW[0], vmax=WINDOW[1])
        ends = {"vmin": -0.5, "vmax": len(CLASSES) - 0.5}
        show(axes[row + 1, column], tissues.labels.numpy(), cmap=COLOUR_MAP, **ends)
    return figure


def show(ax, plane: np.ndarray, **colours) -> None:
    """One coronal plane of voxels [D, 1, H], right of the head on the right."""
    ax.imshow(plane.take(0, axis=CUT).T, origin="lower", interpolation="nearest", **colours)


def main(arguments: list[str] | None = None) -> int:
    """The command line; 0, or 2 after one sentence about what is missing."""
    parser = argparse.ArgumentParser(prog="python -m eval.pictures.gallery", description=__doc__)
    parser.add_argument("--out", type=Path, default=GALLERY, help="the picture")
    options = parser.parse_args(arguments)
    try:
        flow, model = load_appearance_release(), load_release("tiny")
        drawn = list(tqdm(pairs(flow, model, SEEDS), "heads", total=len(SEEDS)))
        with atomic_output(options.out, force=True) as temporary:
            about = {"Source": short_digest(flow.weights_id)}
            gallery(drawn).savefig(temporary, dpi=130, metadata=about)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    print(options.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
