"""Acceptance bars, set before the code was written, beside what the newest rows say.

    python -m eval.bars

For maintainers: pages show what was measured, without the bars.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from eval import generation, speed
from eval.generation.autoencoders import RELEASE
from eval.generation.report import agreement, control_pairs
from eval.rows import RESULTS
from eval.speed.bars import bars_table
from eval.tables import aligned

LEAST_R2, LEAST_RATIO = 0.8, 10.0


def of_sampling(rows: pd.DataFrame) -> list[str]:
    """Requests are followed, and two renderings of a sample are one head."""
    pairs = control_pairs(rows)
    own = pairs[(pairs["what"] == "ventricles") & (pairs["arm"] == RELEASE)]
    r2 = [agreement(p["asked"], p["measured"])["r2"] for _, p in own.groupby("how")]
    ratio = rows[(rows["arm"] == RELEASE) & (rows["metric"] == "renderings_ratio")]["value"]
    found = (
        ("Ventricles, requested and measured: r2", max(r2, default=float("nan")), LEAST_R2),
        ("Two samples apart, over two renderings of one", float(ratio.mean()), LEAST_RATIO),
    )
    return [
        f"{says}: {value:.3g}, at least {least:g}, {'met' if value >= least else 'not met'}"
        for says, value, least in found
    ]


def main() -> None:
    """Print every bar whose experiment is recorded."""
    parser = argparse.ArgumentParser(prog="python -m eval.bars", description=__doc__)
    parser.add_argument("--rows", type=Path, default=RESULTS, help="folder of recorded rows")
    folder = parser.parse_args().rows
    if (rows := speed.EXPERIMENT.recorded(folder)) is not None:
        print(aligned(bars_table(rows).drop(columns="Measured on")))
    if (rows := generation.EXPERIMENT.recorded(folder)) is not None:
        print(*of_sampling(rows), sep="\n")


if __name__ == "__main__":
    main()
