"""The small part of this experiment that its page computes while it is built."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch

from eval.coders.base import Coder, Renderer
from eval.thin_structures import scans
from eval.thin_structures.chests import Chest, Part
from eval.thin_structures.measure import ALL, HALF, scores
from eval.thin_structures.report import name_of
from medil.data.schema import Entry
from medil.volume import Volume

PART_MM = 110.0  # of a real scan, in plane
LUNG_HU = -600.0


def rebuilt(volume: Volume, coders: Sequence[Coder]) -> dict[str, Volume]:
    """Name of each arm for people -> what it rebuilds of a volume on its own grid, in HU."""
    shown = {c.name: Renderer().render(c, volume, volume.grid)[0] for c in coders}
    return {
        name_of(arm): volume.with_data(torch.from_numpy(data).float())
        for arm, data in shown.items()
    }


def part_of_lungs(entry: Entry) -> Volume:
    """`PART_MM` in plane between the middle of a lung and that of the body, all of its slices.

    Of a scan that is smaller, all of it.
    """
    volume = scans.load_scan(entry)
    data = volume.data.numpy()
    lungs = np.argwhere(scans.body(data.astype(float)) & (data < LUNG_HU))
    middle = lungs.mean(0)
    right = lungs[lungs[:, 0] > middle[0]].mean(0)
    shape = np.array(volume.grid.shape)
    size = np.floor(np.array([PART_MM, PART_MM, np.inf]) / volume.grid.spacing_mm)
    size = np.minimum(size, shape).astype(int)
    start = np.clip(np.rint((middle + right) / 2).astype(int) - size // 2, 0, shape - size)
    inside = tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))
    return Volume(volume.data[inside].contiguous(), volume.grid.crop(start, size))


def now_and_then(
    chest: Chest, parts: Sequence[Part], coders: Sequence[Coder], frame: pd.DataFrame | None
) -> pd.DataFrame:
    """The radius of half recall, measured now and as it was recorded of the same chest."""
    known: Mapping = {}
    if frame is not None:
        own = frame[(frame["data_sha256"] == chest.data_sha256) & (frame["radii"] == ALL)]
        known = own.set_index(["arm", "metric"])["value"].to_dict()
    lines = []
    for coder in coders:
        shown = [Renderer().render(coder, part.volume, part.volume.grid)[0] for part in parts]
        now, was = scores(parts, shown)[ALL][HALF], known.get((coder.name, HALF))
        text = "not recorded" if was is None else f"{was:.2f}"
        lines.append({"Arm": name_of(coder.name), "now (mm)": f"{now:.2f}", "recorded (mm)": text})
    return pd.DataFrame(lines)
