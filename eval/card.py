"""The model card of a release, written from its weights and from recorded rows.

    python -m eval.card --release tiny

writes ``medil/releases/NAME.md``: what it was trained on, for how long, what it reaches on
held-out scans, and what it cannot do. Every number comes from the weights or from recorded rows.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pandas as pd

from eval.coders.base import release_arm
from eval.reconstruction import EXPERIMENT
from eval.reconstruction.measure import NAME
from eval.reconstruction.report import GAIN, NATIVE, wide
from eval.rows import RESULTS
from medil.data.manifest import entries
from medil.data.releases import RELEASES, release_path
from medil.errors import InputError
from medil.model.autoencoder import MedIL
from medil.model.weights import load_release, release_config
from medil.system.files import atomic_output

TEXT = """# Model card: {name}

{purpose}

## What it is

| | |
| --- | --- |
| parameters | {parameters:,} |
| file | {megabytes:.1f} MB, fp16 safetensors |
| latent | {channels} channels on a {pitch:g} mm grid |
| rendering operator | {operator} |
| encoder | {encoder} |
| weights | `{weights_id}` |
| configuration | `{config_hash}` (inside the weights file) |

## How it was trained

{steps:,} steps in {minutes:.0f} minutes on {trained_on}, seed {seed}, commit
`{commit}`{earlier}.

- Stage one: whole heads averaged to large voxels, the first {global_share:.0%} of the time.
- Stage two: native-resolution patches of {patch_mm} mm, {batch} a step,
  with {global_mix:.0%} of stage-one steps mixed in.
- {coarser_share:.0%} of its steps render finer voxels than they encode.
- In {anchored_share:.0%} of its steps the latent grid starts at the patch's corner, as it does for
  whole volumes; its phase is random in the others.
- The weights are averages over steps (decay {ema_decay}).

Data: {subjects} synthetic T1w heads painted on {label_maps} SynthSeg label maps (Apache-2.0),
{near:.0%} of them at 0.9 to 1.1 mm, the rest from 0.7 to 2 mm or in slices of up to
{slice_mm:g} mm, their axes tilted by up to {tilt:g} degrees; with {real_share:.0%} of the
patches from raw T1w scans of patients 04 and 12 of the longitudinal open MS data (CC-BY,
Lesjak et al. 2016).
Files, addresses and hashes are in `data_manifests/`. Skull-stripped and raw heads were seen, no
CT.

## What it reaches

Native grid in and out, in the brain or head of subjects it never saw. "Best linear" is the
best linear codec that keeps as many numbers (the low-pass DCT ball counts, the oracle not).

{table}

Recorded at commit `{row_commit}`, {device}, {recorded}.

## What it cannot do

- It keeps one number for eight 1 mm voxels, so it blurs: look at the error maps before use.
- It is a research example, not a medical device, and was never tested for any clinical use.
- T1w brain MRI is all it has seen. Other contrasts, other organs and CT go through it too; how
  well was not measured.
- Detail finer than the encoded voxels is a guess of the network, not a measurement.
- The closed-form projection does most of the work; `linear_only=True` shows what it does alone.
- Few people, one site, one disease among the real scans: nothing here speaks of fairness over
  ages, scanners or populations.
"""


def results_table(frame: pd.DataFrame, arm: str) -> str:
    """One Markdown row per subject: PSNR of a release and of the best linear codec."""
    table = wide(frame)
    lines = [
        f"| scan | voxels (mm) | MedIL PSNR (dB) | best linear (dB) | {GAIN} |",
        "| --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {r.subject} | {r.spacing_in_mm} | {r.psnr:.2f} | {r.rival_db:.2f} | {r.gain_db:+.2f} |"
        for r in table[(table["condition"] == NATIVE) & (table["arm"] == arm)].itertuples()
    ]
    return "\n".join(lines)


def trained_on(facts: dict, threads: int) -> str:
    """The hardware of the run; early runs on one CPU thread did not record it."""
    devices = dict.fromkeys(call["device"] for call in facts.get("calls", ()))
    if any("CPU" not in name for name in devices):
        return " and ".join(f"one {name}" for name in devices)
    return f"{threads} thread(s) of a CPU"


def earlier_text(facts: dict) -> str:
    """A clause about the run that initialised these weights; empty if they started from scratch."""
    before = facts.get("earlier")
    if not before:
        return ""
    return (
        f", begun from the weights of a shallower model ({before['step']:,} steps in "
        f"{before['minutes']:.0f} minutes, commit `{before['commit']}`)"
    )


def card(name: str, model: MedIL, frame: pd.DataFrame) -> str:
    """The card of release `name` in Markdown, from its model and prepared reconstruction rows.

    Raises:
        InputError: No row of these weights yet.
    """
    own = frame[(frame["experiment"] == NAME) & (frame["arm"] == release_arm(name))]
    if own.empty:
        raise InputError("no row of this release yet; run python -m eval.reconstruction first.")
    newest = own.sort_values("recorded_at").iloc[-1]
    config = release_config(name)
    facts, run, data = model.facts, config.train, config.data
    return TEXT.format(
        name=name,
        purpose=f"The `{name}` autoencoder of this repository, trained by its own code.",
        parameters=sum(p.numel() for p in model.parameters()),
        megabytes=release_path(name).stat().st_size / 1e6,
        channels=config.model.latent_channels,
        pitch=config.model.latent_spacing_mm,
        operator=f"{config.model.operator} LTE on cubic B-splines",
        encoder="closed-form projection plus learned residual"
        if config.model.closed_form
        else "learned",
        weights_id=model.weights_id,
        config_hash=facts["config_hash"],
        steps=facts["step"],
        minutes=facts["minutes"],
        seed=facts["seed"],
        commit=facts["commit"],
        trained_on=trained_on(facts, run.threads),
        global_share=run.global_share,
        global_mix=run.global_mix,
        coarser_share=run.coarser_share,
        patch_mm=" or ".join(f"{side:g}" for side in run.patch_sides_mm),
        anchored_share=run.anchored_share,
        ema_decay=run.ema_decay,
        near=data.near_1mm_share,
        slice_mm=data.slice_mm[1],
        tilt=data.max_tilt_deg,
        earlier=earlier_text(facts),
        batch=run.batch,
        subjects=data.subjects,
        label_maps=len(entries("synthseg_labels", "train")),
        real_share=data.real_share,
        table=results_table(frame, release_arm(name)),
        row_commit=newest["commit"],
        device=newest["device"],
        recorded=f"{newest['recorded_at']:%Y-%m-%d}",
    )


def main(arguments: list[str] | None = None) -> int:
    """Write the card of a release beside its weights; 0, or 2 after one sentence."""
    parser = argparse.ArgumentParser(prog="python -m eval.card", description=__doc__)
    parser.add_argument("--release", default="tiny", help="which released weights (tiny)")
    parser.add_argument("--rows", type=Path, default=RESULTS, help="folder of recorded rows")
    options = parser.parse_args(arguments)
    try:
        frame = EXPERIMENT.recorded(options.rows)
        if frame is None:
            raise InputError(f"no rows on reconstruction; run {EXPERIMENT.command} first.")
        text = card(options.release, load_release(options.release), frame)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    with atomic_output(RELEASES / f"{options.release}.md", force=True) as temporary:
        temporary.write_text(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
