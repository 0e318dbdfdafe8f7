"""The model card of a released latent diffusion model, from its weights and recorded rows.

    python -m eval.generation.card --release tiny

writes ``medil/releases/NAME-ldm.md``. Every number comes from the weights or a row.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from eval.card import trained_on
from eval.generation import EXPERIMENT
from eval.generation.autoencoders import RELEASE, RELEASED
from eval.generation.verdict import by_set, samples, verdict
from eval.rows import RESULTS, digest, read_rows
from medil.config import FlowConfig
from medil.data.manifest import entries
from medil.data.releases import RELEASES, release_path
from medil.diffusion.flow import LatentFlow
from medil.diffusion.training import RELEASE_NAME, load_flow_release
from medil.errors import InputError
from medil.synth.attributes import ATTRIBUTES
from medil.system.files import atomic_output

TEXT = """# Model card: {name}

A latent diffusion model of this repository, trained by its own code: it samples latents of the
autoencoder `{autoencoder}`, which renders them on any grid.

## What it is

| | |
| --- | --- |
| parameters | {parameters:,} |
| file | {megabytes:.1f} MB, fp16 safetensors |
| samples | {channels} channels on a grid of {shape} cells of {pitch:g} mm |
| networks | MONAI's `DiffusionModelUNet`, from coarse to fine: {networks} |
| flow | rectified; training times lean to noise by a shift of {shift} |
| belongs to | autoencoder weights `{autoencoder_id}` |
| weights | `{weights_id}` |
| configuration | `{config_hash}` (inside the weights file) |

## How it was trained

{steps:,} steps of {batch} latent(s) and {coarse_draws} times as many block means in
{minutes:.0f} minutes on {trained_on}, seed {seed}, commit `{commit}`;
averaged weights (decay {ema}).{earlier}

Data: {heads} synthetic T1w heads drawn on {label_maps} SynthSeg label maps (Apache-2.0),
skull-stripped, centred in a box and turned by a few degrees at most. No real scan, no map of the
`test` split.

Conditions it knows, and the range it has seen:

{conditions}

## What it reaches

{results}

## What it cannot do

- It has seen {label_maps} anatomies, each bent in several ways, for a short time. Its heads have
  the outline of a head, its size and its ventricles; in place of folds they have texture.
- A condition is a number that the cohort knew, not a cause: asking for large ventricles does
  not simulate a disease.
- Under `--like` what the scan does not show is invented. It is no measurement.
- It is a research example, not a medical device, and was never tested for any clinical use.
"""


def networks(config: FlowConfig, pitch_mm: float) -> list[str]:
    """Each network of a cascade, the coarsest first: its channels, and its finest cells."""
    inner_mm = pitch_mm * config.fold
    own = f"channels {', '.join(map(str, config.channels))} on cells of {inner_mm:g} mm"
    under = networks(config.coarse, pitch_mm * config.block) if config.coarse else []
    return [*under, own]


def earlier_text(facts: dict) -> str:
    """A sentence about the run that weights began from; empty if they began from nothing."""
    before = facts.get("earlier")
    if not before:
        return ""
    which = "All networks" if before["whole"] else "The coarser networks"
    return (
        f" {which} began from the weights of an earlier run ({before['step']:,} steps in "
        f"{before['minutes']:.0f} minutes, commit `{before['commit']}`)."
    )


def conditions_table(flow: LatentFlow) -> str:
    """One Markdown row a condition: what it is, its unit, its range."""
    lines = ["| condition | is | unit | range |", "| --- | --- | --- | --- |"]
    for name, spread in flow.known.spreads.items():
        about = ATTRIBUTES[name]
        lines.append(
            f"| `{name}` | {about.meaning} | {about.unit} | {spread.low:.3g} to {spread.high:.3g} |"
        )
    return "\n".join(lines)


def card(name: str, flow: LatentFlow, rows: pd.DataFrame) -> str:
    """The card of the flow released as `name`, in Markdown, from prepared rows.

    Raises:
        InputError: No row of these weights yet.
    """
    if flow.settings is None:
        raise InputError("this flow was not loaded from a weights file.")
    pair = digest((flow.known.autoencoder_id, flow.weights_id))  # as in the rows
    if not (rows["weights_sha256"] == pair).any():
        raise InputError("no row of this release yet; run python -m eval.generation first.")
    known, facts, run = flow.known, flow.facts, flow.settings.train
    stem = RELEASE_NAME.format(name)
    return TEXT.format(
        name=stem,
        autoencoder=name,
        parameters=sum(p.numel() for p in flow.parameters()),
        megabytes=release_path(stem).stat().st_size / 1e6,
        channels=len(known.std),
        shape=" x ".join(map(str, known.grid.shape)),
        pitch=known.grid.spacing_mm[0],
        networks="; ".join(networks(flow.config, known.grid.spacing_mm[0])),
        shift=f"{run.shift:g} (coarse), {run.given_shift:g} (fine)",
        coarse_draws=run.coarse_draws,
        autoencoder_id=known.autoencoder_id,
        weights_id=flow.weights_id,
        config_hash=facts["config_hash"],
        steps=facts["step"],
        batch=run.batch,
        minutes=facts["minutes"],
        trained_on=trained_on(facts, run.threads),
        seed=facts["seed"],
        commit=facts["commit"],
        ema=run.ema_decay,
        earlier=earlier_text(facts),
        heads=facts["heads"],
        label_maps=len(entries("synthseg_labels", "train")),
        conditions=conditions_table(flow),
        results=verdict(rows) if name == RELEASED[RELEASE] else alone(rows, name),
    )


def alone(rows: pd.DataFrame, name: str) -> str:
    """What rows say of a release that does not come first: how far its samples lie from heads."""
    (arm,) = (arm for arm, preset in RELEASED.items() if preset == name)
    return samples(by_set(rows), arm)


def main() -> None:
    """Write the card of a release beside its weights."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--release", default="tiny")
    parser.add_argument("--rows", type=Path, default=RESULTS)
    options = parser.parse_args()
    rows = EXPERIMENT.prepare(read_rows(options.rows / "generation.jsonl"))
    text = card(options.release, load_flow_release(options.release), rows)
    path = RELEASES / f"{RELEASE_NAME.format(options.release)}.md"
    with atomic_output(path, force=True) as temporary:
        temporary.write_text(text)


if __name__ == "__main__":
    main()
