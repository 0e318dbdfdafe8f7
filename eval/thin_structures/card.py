"""The model card of a released autoencoder for chest CT, from its weights and recorded rows.

    python -m eval.thin_structures.card --release chest-tiny

writes ``medil/releases/NAME.md``. Every number comes from the weights or a row.
"""

from __future__ import annotations

import pandas as pd

from eval.card import about_weights, earlier_run, recorded_rows, write_card
from eval.coders.base import release_arm
from eval.tables import piped
from eval.thin_structures import EXPERIMENT
from eval.thin_structures.chests import WINDOW_HU
from eval.thin_structures.coders import CODECS
from eval.thin_structures.report import (
    ct_table,
    half_table,
    of_chests,
    scores_of,
    windows_table,
)
from eval.thin_structures.verdict import survives
from medil.model.autoencoder import MedIL
from medil.model.weights import load_release, release_config

TEXT = """# Model card: {name}

An autoencoder for chest CT, trained by this repository's own code on synthetic chests alone.

## What it is

| | |
| --- | --- |
| parameters | {parameters:,} |
| file | {megabytes:.1f} MB, fp16 safetensors |
| latent | {config.model.latent_channels} channels on a {config.model.latent_spacing_mm:g} mm grid |
| rendering operator | {config.model.operator} LTE on cubic B-splines |
| window | {low:g} to {high:g} HU became 0 and 1; nothing beyond is clipped |
| weights | `{weights}` (first digits of their digest, as in rows and pages) |
| configuration | `{facts[config_hash]}` (inside the weights file) |

## How it was trained

{facts[step]:,} steps in {facts[minutes]:.0f} minutes on {trained_on} beside other work, seed
{facts[seed]}, commit `{facts[commit]}`{earlier}; averaged weights (decay {run.ema_decay}). The
schedule was made for {run.minutes:g} minutes.

Data: parts of synthetic chests and whole coarse ones from `medil cohort --kind chest`, made by
formulas of this repository (Apache-2.0), no person's scan; native grids, kernels and noise as in
`medil.synth.ct`. The weights that it began from saw real heads: see the card of `tiny`.

## What it reaches

{sentence}

{half}

Real chest CT, which no training saw, in HU ({of_ct}; BSD-3-Clause and Apache-2.0), beside linear
codecs that keep as many numbers:

{ct}

Encoded with another window than in training (`--window lung`), the errors are:

{windows}

Recorded at commit `{newest.commit}`, {newest.device}, {newest.recorded_at:%Y-%m-%d}.

## What it cannot do

- It keeps one number for 8 mm³: airways of about a millimetre and less are lost.
- Its chests are ellipsoids, cylinders and a branching tree: it has seen no disease.
- It removes noise with the detail; noise in a scan carries no anatomy, detail does.
- It is a research example, not a medical device, and was never tested for any clinical use.
"""

CONTINUED = ", begun from `tiny` without the last block of each level of its encoder"


def card(name: str, model: MedIL, rows: pd.DataFrame) -> str:
    """The card of release `name` in Markdown, from its model and prepared rows.

    Raises:
        InputError: No row of these weights yet.
    """
    own = recorded_rows(rows[rows["arm"] == release_arm(name)], EXPERIMENT)
    config = release_config(name)
    shown = rows[rows["arm"].isin(["scan", release_arm(name), *CODECS])]
    low, high = WINDOW_HU
    return TEXT.format(
        name=name,
        config=config,
        run=config.train,
        low=low,
        high=high,
        earlier=earlier_run(model.facts, CONTINUED),
        sentence=survives(scores_of(of_chests(rows)), release_arm(name)),
        half=piped(half_table(shown)),
        of_ct=", ".join(dict.fromkeys(ct_table(shown)["Scan"])),
        ct=piped(ct_table(shown)),
        windows=piped(windows_table(rows)),
        newest=own.sort_values("recorded_at").iloc[-1],
        **about_weights(model, name, config.train.threads),
    )


if __name__ == "__main__":
    raise SystemExit(write_card(None, EXPERIMENT, "{}.md", load_release, card))
