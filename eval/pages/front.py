"""The two numbers of the first page: the gain at the scans' own voxels, and the largest loss.

    python -m eval.pages.front

writes ``front.md`` from the recorded reconstruction.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pandas as pd

from eval.coders.base import models
from eval.pairs import counted
from eval.reconstruction import EXPERIMENT
from eval.reconstruction.curve import CUBES, LOSES, points
from eval.reconstruction.report import wide
from eval.rows import RESULTS
from medil.system.files import atomic_output

OUT = Path("_build/tables")
CARD = ":::{{grid-item-card}} {title}\n{text}\n:::"
NOTHING = "No gain by voxel size is recorded yet."


def cards(frame: pd.DataFrame | None) -> str:
    """Both numbers as cards in Markdown; a sentence where they are not recorded."""
    table = wide(frame) if frame is not None else pd.DataFrame()
    found = points(table) if len(table) else table
    if found.empty:
        return NOTHING
    found = found[found["arm"] == models(table["arm"])[0]].dropna(subset="gain")
    return "\n".join(_card(point, words) for point, words in _both(found))


def _both(found: pd.DataFrame) -> list[tuple]:
    own = found[found["text"] == "its own"]
    lost = found[found["said"] == LOSES]
    lost = lost.iloc[[lost["gain"].map(lambda gain: gain.mean).argmin()]] if len(lost) else lost
    rival = "than the best linear code of as many numbers"
    pairs = [(point, f"{_side(point)} {rival}, on scans' own voxels") for point in own.itertuples()]
    return pairs + [
        (point, f"{_side(point)} than that code, on {_voxels(point)}")
        for point in lost.itertuples()
    ]


def _side(point) -> str:
    return f"{'nearer to' if point.gain.mean > 0 else 'farther from'} the scan"


def _voxels(point) -> str:
    if point.kind == CUBES:
        return f"cubes of {point.size_mm:g} mm"
    return f"slices of {point.size_mm:g} mm"


def _card(point, words: str) -> str:
    low, high = _signed(point.gain.low), _signed(point.gain.high)
    people = counted(int(point.n), "real brain")
    text = f"{words} (n = {people}, 95\u00a0% interval {low} to {high})"
    return CARD.format(title=f"{_signed(point.gain.mean)} dB PSNR", text=text)


def _signed(value_db: float) -> str:
    return f"{value_db:+.2f}".replace("-", "−")


def write(out: Path, folder: Path = RESULTS) -> Path:
    """Write the cards of a folder of rows; the file."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / "front.md"
    with atomic_output(path, force=True) as part:
        part.write_text(cards(EXPERIMENT.recorded(folder)) + "\n", "utf-8")
    return path


def main(arguments: list[str] | None = None) -> int:
    """The command line; 0."""
    parser = argparse.ArgumentParser(prog="python -m eval.pages.front", description=__doc__)
    parser.add_argument("--out", type=Path, default=OUT, help="folder of the file")
    print(write(parser.parse_args(arguments).out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
