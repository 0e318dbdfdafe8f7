"""The model card of a released anatomy-first sampler, from its weights and recorded rows.

    python -m eval.generation.appearance_card --release tiny

writes ``medil/releases/NAME-appearance.md``. Every number comes from the weights or a row.
"""

from __future__ import annotations

import pandas as pd

from eval.card import about_weights, write_card
from eval.generation import EXPERIMENT
from eval.generation.arms import ANATOMY
from eval.generation.card import training_data, with_partner
from eval.generation.report import anatomy_table, classes_table
from eval.generation.verdict import of_anatomy
from eval.tables import piped
from medil.diffusion.appearance import SHIFT, STEPS, AppearanceFlow
from medil.diffusion.appearance_training import RELEASE_NAME, load_appearance_release

TEXT = """# Model card: {name}

The appearance of a given anatomy: a flow of this repository, trained by its own code, that samples
latents of the autoencoder `{autoencoder}` given a tissue map. With the `anatomies` of the release
it is what `medil sample` uses by default.

## What it is

| | |
| --- | --- |
| parameters | {parameters:,} |
| file | {megabytes:.1f} MB, fp16 safetensors |
| samples | {channels} channels on cells of {known.pitch_mm:g} mm, given {config.classes} classes \
in voxels of 1 mm |
| network | convolutions alone: {config.blocks} residual blocks of {config.width} channels |
| sampler | DPM-Solver++(2M), {steps} steps, times shifted by {shift:g} |
| belongs to | autoencoder weights `{partner}` |
| weights | `{weights}` (first digits of their digest) |
| with its autoencoder | `{pair}` (of both, as in rows and pages) |
| configuration | `{facts[config_hash]}` (inside the weights file) |

## How it was trained

{facts[step]:,} steps of {run.batch} patches of {run.patch} x {run.patch} x {run.patch} cells in
{facts[minutes]:.0f} minutes on {trained_on}, seed {facts[seed]}, commit `{facts[commit]}`; averaged
weights (decay {run.ema_decay}).

Data: {data}

It is told, where known: {covariates}.

## What it reaches

{results}

{classes}

"Heads" are synthetic, with exact maps, through the autoencoder alone: what the segmenter finds at
best.

{anatomy}

Recorded at commit `{newest.commit}`, {newest.device}, {newest.recorded_at:%Y-%m-%d}.

## What it cannot do

- Every anatomy is one of {label_maps} people's, bent and grown: shapes vary, how folds are joined
  hardly does.
- The maps of real scans are a segmenter's: where that errs, the flow has learned it.
- It has seen the real scans of one scanner. Contrast and age are what a network was told, no
  cause: asking for an age does not simulate ageing.
- It is a research example, not a medical device, and was never tested for any clinical use.
"""


def card(name: str, flow: AppearanceFlow, rows: pd.DataFrame) -> str:
    """The card of the flow released as `name`, in Markdown, from prepared rows.

    Raises:
        InputError: No row of these weights yet.
    """
    stem = RELEASE_NAME.format(name)
    settings, own, partners = with_partner(name, flow, rows)
    run = settings.train
    return TEXT.format(
        name=stem,
        **partners,
        channels=len(flow.mean),
        known=flow.known,
        config=flow.config,
        run=run,
        steps=STEPS,
        shift=SHIFT,
        data=training_data(flow, settings),
        covariates=", ".join(f"`{name}`" for name in flow.known.spreads),
        results=of_anatomy(rows),
        classes=piped(classes_table(rows)),
        anatomy=piped(anatomy_table(rows)),
        newest=own[own["arm"] == ANATOMY].sort_values("recorded_at").iloc[-1],
        **about_weights(flow, stem, run.threads),
    )


if __name__ == "__main__":
    raise SystemExit(
        write_card(None, EXPERIMENT, f"{RELEASE_NAME}.md", load_appearance_release, card)
    )
