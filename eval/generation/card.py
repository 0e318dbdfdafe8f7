"""The model card of a released latent diffusion model, from its weights and recorded rows.

    python -m eval.generation.card --release tiny

writes ``medil/releases/NAME-ldm.md``. Every number comes from the weights or a row.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from eval.card import about_weights, chain, earlier_run, recorded_rows, write_card
from eval.generation import EXPERIMENT
from eval.generation.verdict import verdict
from eval.rows import digest
from medil.data.manifest import entries
from medil.diffusion.appearance import AppearanceFlow
from medil.diffusion.config import FlowConfig
from medil.diffusion.flow import LatentFlow
from medil.diffusion.sampling import check_pair
from medil.diffusion.scans import REAL
from medil.diffusion.training import RELEASE_NAME, load_flow_release
from medil.errors import InputError
from medil.model.weights import load_release, short_digest, weights_sha256
from medil.synth.attributes import COVARIATES

TEXT = """# Model card: {name}

A latent diffusion model of this repository, trained by its own code: it samples latents of the
autoencoder `{autoencoder}`, which renders them on any grid.

## What it is

| | |
| --- | --- |
| parameters | {parameters:,} |
| file | {megabytes:.1f} MB, fp16 safetensors |
| samples | {channels} channels on a grid of {shape} cells of {known.grid.spacing_mm[0]:g} mm |
| networks | MONAI's `DiffusionModelUNet`, from coarse to fine: {networks} |
| flow | rectified; training times lean to noise by a shift of {run.shift:g} (coarse), \
{run.given_shift:g} (fine) |
| belongs to | autoencoder weights `{partner}` |
| weights | `{weights}` (first digits of their digest) |
| with its autoencoder | `{pair}` (of both, as in rows and pages) |
| configuration | `{facts[config_hash]}` (inside the weights file) |

## How it was trained

{facts[step]:,} steps of {run.batch} latent(s) and {run.coarse_draws} times as many block means in
{facts[minutes]:.0f} minutes on {trained_on}, seed {facts[seed]}, commit `{facts[commit]}`;
averaged weights (decay {run.ema_decay}).{earlier}

Data: {data}
All are skull-stripped and centred in a box.

Conditions it knows, and the range it has seen:

{conditions}

## What it reaches

{results}

## What it cannot do

- It invents where tissue is and how it looks at once, after a short training on few people. Its
  heads have the outline of a head, its size and its ventricles; in place of folds they have
  texture. `medil sample` draws an anatomy first instead.
- A condition is a number that was known in training, not a cause: asking for large ventricles does
  not simulate a disease.
- Under `--like` what the scan does not show is invented. It is no measurement.
- It is a research example, not a medical device, and was never tested for any clinical use.
"""
DATA = """{heads[real]} copies, as scanned and mirrored, of {count} real brains of `{name}`
({licence}; {citation}), {share:.0%} of what a step sees, with volumes and maps of
`tiny-segmenter`; and {heads[synthetic]} synthetic heads, whose maps are exact, drawn on
{label_maps} SynthSeg label maps (Apache-2.0). No scan and no map of a `test` split."""
OTHER_LATENTS = ", which had learned the latents of an earlier autoencoder"
EARLIER = (
    " {which} began from the weights of an earlier run ({step:,} steps in {minutes:.0f} "
    "minutes, commit `{commit}`){latents}."
)


def _earlier(facts: dict) -> str:
    """A sentence about the run before a run, and whose latents it learned."""
    same = facts["earlier"].get("same_latents", True)
    return earlier_run(facts, EARLIER.replace("{latents}", "" if same else OTHER_LATENTS))


def networks(config: FlowConfig, pitch_mm: float) -> list[str]:
    """Each network of a cascade, the coarsest first: its channels, and its finest cells."""
    inner_mm = pitch_mm * config.fold
    own = f"channels {', '.join(map(str, config.channels))} on cells of {inner_mm:g} mm"
    under = networks(config.coarse, pitch_mm * config.block) if config.coarse else []
    return [*under, own]


def conditions_table(flow: LatentFlow) -> str:
    """One Markdown row a condition: what it is, its unit, its range."""
    lines = ["| condition | is | unit | range |", "| --- | --- | --- | --- |"]
    for name, spread in flow.known.spreads.items():
        about = COVARIATES[name]
        lines.append(
            f"| `{name}` | {about.meaning} | {about.unit} | {spread.low:.3g} to {spread.high:.3g} |"
        )
    return "\n".join(lines)


def with_partner(
    name: str, flow: LatentFlow | AppearanceFlow, rows: pd.DataFrame
) -> tuple[Any, pd.DataFrame, dict[str, str]]:
    """Settings of a released flow, its rows, and what its card says of its autoencoder.

    Raises:
        InputError: No row of these weights yet, or an autoencoder that they do not belong to.
    """
    if flow.settings is None:
        raise InputError("this flow was not loaded from a weights file.")
    pair = digest((flow.known.autoencoder_id, flow.weights_id))  # as in the rows
    own = recorded_rows(rows[rows["weights_sha256"] == pair], EXPERIMENT)
    model = load_release(name)
    check_pair(flow, model)
    partner = short_digest(weights_sha256(model))
    return flow.settings, own, {"autoencoder": name, "partner": partner, "pair": short_digest(pair)}


def training_data(flow: LatentFlow | AppearanceFlow, settings: Any) -> str:
    """What a released flow was trained on, with sources and licences."""
    scans, maps = entries(REAL, "train"), entries("synthseg_labels", "train")
    return DATA.format(
        heads=flow.facts["heads"],
        count=len(scans),
        name=REAL,
        licence=scans[0].licence,
        citation=scans[0].citation,
        share=settings.real_share,
        label_maps=len(maps),
    )


def card(name: str, flow: LatentFlow, rows: pd.DataFrame) -> str:
    """The card of the flow released as `name`, in Markdown, from prepared rows.

    Raises:
        InputError: No row of these weights yet.
    """
    known, stem = flow.known, RELEASE_NAME.format(name)
    settings, _, partners = with_partner(name, flow, rows)
    run = settings.train
    return TEXT.format(
        name=stem,
        **partners,
        known=known,
        run=run,
        channels=len(known.std),
        shape=" x ".join(map(str, known.grid.shape)),
        networks="; ".join(networks(flow.config, known.grid.spacing_mm[0])),
        earlier="".join(_earlier(facts) for facts in chain(flow.facts)[:-1]),
        data=training_data(flow, settings),
        conditions=conditions_table(flow),
        results=verdict(rows),
        **about_weights(flow, stem, run.threads),
    )


if __name__ == "__main__":
    raise SystemExit(write_card(None, EXPERIMENT, f"{RELEASE_NAME}.md", load_flow_release, card))
