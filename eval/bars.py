"""Acceptance bars, set before the code was written, compared with the newest rows.

    python -m eval.bars

For maintainers: pages show what was measured, without the bars.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from eval import generation, latent_consistency, reconstruction, speed
from eval.coders.base import MEDIL
from eval.generation.arms import ANATOMY
from eval.generation.report import agreement, control_pairs
from eval.latent_consistency.report import coarse_table, consistency_table
from eval.reconstruction.report import of_key_subject, wide
from eval.rows import RESULTS
from eval.speed.bars import bars_table
from eval.tables import aligned

LEAST_R2, LEAST_RATIO, LEAST_GAIN_DB, MOST_LOST_DB = 0.8, 10.0, 1.0, 0.3


def of_sampling(rows: pd.DataFrame) -> list[str]:
    """Samples follow requests, and two renderings of one sample agree."""
    pairs = control_pairs(rows)
    own = pairs[(pairs["what"] == "ventricles") & (pairs["arm"] == ANATOMY)]
    r2 = [agreement(p["asked"], p["measured"])["r2"] for _, p in own.groupby("how")]
    ratio = rows[(rows["arm"] == ANATOMY) & (rows["metric"] == "renderings_ratio")]["value"]
    return [
        judged("Ventricles, requested and measured: r²", max(r2, default=float("nan")), LEAST_R2),
        judged("Two samples apart, over two renderings of one", float(ratio.mean()), LEAST_RATIO),
    ]


def of_reconstruction(rows: pd.DataFrame) -> list[str]:
    """The release beats every linear codec of its size on the held-out brain."""
    table = of_key_subject(wide(rows))
    gains_db = table[table["arm"] == MEDIL]["gain_db"]
    return [judged("Above the best linear codec (dB)", db, LEAST_GAIN_DB) for db in gains_db]


def of_latents(rows: pd.DataFrame) -> list[str]:
    """A latent does not change when only the grid does."""
    table = consistency_table(rows[rows["arm"] == MEDIL])
    lines = [
        judged(f"{r.Question}, {r.Scanned}: distance", r.Distance, r.Bar, most=True)
        for r in table[table["Bar"].notna()].itertuples()
    ]
    lost_db = coarse_table(rows[rows["arm"] == MEDIL])["Lost (dB)"]
    name = "Coarse channel of a 2 mm scan: lost (dB)"
    return lines + [judged(name, db, MOST_LOST_DB, most=True) for db in lost_db]


def judged(name: str, value: float, limit: float, most: bool = False) -> str:
    """One bar: what was measured, the limit, and whether it is met."""
    met = value <= limit if most else value >= limit
    words = f"at {'most' if most else 'least'} {limit:g}"
    return f"{name}: {value:.3g}, {words}, {'met' if met else 'not met'}"


OTHERS = (
    (generation.EXPERIMENT, of_sampling),
    (reconstruction.EXPERIMENT, of_reconstruction),
    (latent_consistency.EXPERIMENT, of_latents),
)


def main() -> None:
    """Print every bar whose experiment is recorded."""
    parser = argparse.ArgumentParser(prog="python -m eval.bars", description=__doc__)
    parser.add_argument("--rows", type=Path, default=RESULTS, help="folder of recorded rows")
    folder = parser.parse_args().rows
    if (rows := speed.EXPERIMENT.recorded(folder)) is not None:
        print(aligned(bars_table(rows).drop(columns="Measured on")))
    for experiment, lines in OTHERS:
        if (rows := experiment.recorded(folder)) is not None:
            print(*lines(rows), sep="\n")


if __name__ == "__main__":
    main()
