"""The conditions of the experiment: contents of a head, grids that scan them, their names.

A condition reads ``CONTENT -> SCAN | CHANNELS`` where latents are compared, and
``CONTENT, LATENT -> 1 mm`` where a rendering is scored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict

import numpy as np
import pandas as pd

from eval import rows
from eval.coders.base import MEDIL, SPLINES
from medil.grid import Grid
from medil.model.base import LatentAutoencoder

NAME = "latent_consistency"
DIFFERENCES = ("latent_rms", "latent_l2", "latent_cosine")
UNITS = {**dict.fromkeys(DIFFERENCES, "1"), "psnr": "dB"}

# Contents of a head: all of it, or without short waves
WHOLE, SAME, SMOOTHER = "1 mm", "1 mm, waves above 6 mm", "1 mm, waves above 9 mm"
BANDS_PER_MM = {SAME: (1 / 9, 1 / 6), SMOOTHER: (1 / 13.5, 1 / 9)}  # pass, stop

# Scans
ANOTHER = "another head"
TRANSPORTED = "brought back to its own cells"
SHIFTED_CELLS = "latent cells shifted"
TURNED = "turned 12 degrees"
COARSE_OF_2_MM = "coarse part of 2 mm"
Place = Callable[[Grid], Grid]
FINE: dict[str, Place] = {  # which hold waves of 6 mm; parallel to the 1 mm block
    "shifted": lambda block: block.shifted((0.37, 0.5, 0.21)),
    "0.8 mm": lambda block: block.with_spacing(0.8),
    "0.7 mm": lambda block: block.with_spacing(0.7),
    "0.5 mm": lambda block: block.with_spacing(0.5),
}
PLACES: dict[str, Place] = {  # which hold waves of 9 mm
    "shifted": FINE["shifted"],
    "0.8 mm": FINE["0.8 mm"],
    "1.5 mm": lambda block: block.with_spacing(1.5),
    "2 mm": lambda block: block.with_spacing(2.0).shifted((0.61, 0.93, -0.27)),
    "2 mm, aligned": lambda block: block.with_spacing(2.0),
    "1 x 1 x 3 mm": lambda block: block.with_spacing((1.0, 1.0, 3.0)),
}

# Headers that do not tell the truth
HEADER_MM = (0.0, 0.5, 1.0, 2.0, 4.0)
HEADER_DIRECTION = (1 / 3, 2 / 3, 2 / 3)  # of length 1, along the block's axes
HEADER_DEG = (2.0, 5.0)
off = "header off by {:g} mm".format
turned_by = "header turned by {:g} degrees".format
moved = "head moved {:g} mm".format  # latents are compared cell by cell of the scanner
truly = "truly scanned {:g} mm off".format  # voxels and header are shifted together

MARGIN_CELLS = 3  # latent cells nearer to a face of either scan's box are not compared
PHASE_MM = (0.29, 0.73, -0.41)  # of latent cells against voxels: coinciding centres flatter
CELL_SHIFT_MM = (1.37, -0.71, 1.93)  # of latent cells that are brought back in closed form
DEFINITION = {  # what the numbers mean; another meaning is another configuration
    "version": 2,
    "margin_cells": MARGIN_CELLS,
    "mm": [PHASE_MM, CELL_SHIFT_MM],
    "band_per_mm": BANDS_PER_MM,
    "header": [HEADER_MM, HEADER_DIRECTION, HEADER_DEG],
}


def rendered(scanned: str = "") -> str:
    """The condition of a rendering on the 1 mm voxels that were scanned."""
    return f"{WHOLE}, {scanned} -> 1 mm" if scanned else f"{WHOLE} -> 1 mm"


def header_shift(block: Grid, offset_mm: float) -> np.ndarray:
    """[3] (R, A, S) mm: how far a header is off, along the block's own axes."""
    return block.directions @ np.asarray(HEADER_DIRECTION) * offset_mm


def factors(conditions: pd.Series) -> pd.DataFrame:
    """Content, scan and channels of latents that were compared; which latent was rendered."""
    compared = conditions.str.extract(r"^(?P<content>.*) -> (?P<scanned>.*) \| (?P<channels>.*)$")
    latent = conditions.str.extract(rf"^{WHOLE}(?:, )?(.*) -> 1 mm$")[0]
    return compared.assign(latent=latent.replace("", off(0.0)))


def can_scan(content_mm: float, grid: Grid) -> bool:
    """Whether averages over a grid's voxels are a scan of a content with voxels of `content_mm`."""
    own_mm = content_mm + 1e-6
    return max(grid.spacing_mm) > own_mm and min(grid.spacing_mm) > own_mm - 2e-6


def parts(model: LatentAutoencoder) -> dict[str, slice]:
    """Which channels are compared: all, and the mean over a latent cell where there is one."""
    found = {"all": slice(None)}
    if model.config.closed_form and model.config.fine_per_latent == 2:
        found["coarse"] = slice(0, 1)  # the Haar mean; the other channels are details
    return found


def arms(model: LatentAutoencoder, name: str = MEDIL) -> list[str]:
    """The model under its name in the rows, and its closed form alone where it has one."""
    return [name, f"{name}{SPLINES}"] if model.config.closed_form else [name]


def config_hash(model: LatentAutoencoder, arm: str, cohort: Sequence[str] = ()) -> str:
    """Digest of arm, model configuration and definitions; of the cohort too, where it matters."""
    return rows.digest([arm, asdict(model.config), sorted(cohort), DEFINITION])
