"""The model card of a release, written from its weights and from recorded rows.

    python -m eval.card --release tiny

writes ``medil/releases/NAME.md``: what it was trained on, for how long, what it reaches on
held-out scans, and what it cannot do. Every number comes from the weights or from recorded rows.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from eval.coders.base import release_arm
from eval.experiment import Experiment
from eval.reconstruction import EXPERIMENT
from eval.reconstruction.measure import NAME
from eval.reconstruction.report import GAIN, NATIVE, wide
from eval.rows import RESULTS
from eval.subjects import name_of
from medil.config import DataConfig
from medil.data.manifest import entries
from medil.data.releases import RELEASES, release_path
from medil.errors import InputError
from medil.model.autoencoder import MedIL
from medil.model.weights import load_release, release_config, short_digest, weights_sha256
from medil.system.files import atomic_output
from medil.training.dataset import REAL

if TYPE_CHECKING:
    from medil.anatomy.network import TissueNet
    from medil.diffusion.appearance import AppearanceFlow
    from medil.diffusion.flow import LatentFlow

TEXT = """# Model card: {name}

The `{name}` autoencoder of this repository, trained by its own code.

## What it is

| | |
| --- | --- |
| parameters | {parameters:,} |
| file | {megabytes:.1f} MB, fp16 safetensors |
| latent | {config.model.latent_channels} channels on a {config.model.latent_spacing_mm:g} mm grid |
| rendering operator | {config.model.operator} LTE on cubic B-splines |
| encoder | {encoder} |
| weights | `{weights}` (first digits of their digest, as in rows and pages) |
| configuration | `{facts[config_hash]}` (inside the weights file) |

## How it was trained

{facts[step]:,} steps in {facts[minutes]:.0f} minutes on {trained_on}, seed {facts[seed]}, commit
`{facts[commit]}`{earlier}.

- Stage one: whole heads averaged to large voxels, the first {run.global_share:.0%} of the time.
- Stage two: native-resolution patches of {patch_mm} mm, {run.batch} a step,
  with {run.global_mix:.0%} of stage-one steps mixed in.
- {run.coarser_share:.0%} of its steps render finer voxels than they encode.
- In {run.anchored_share:.0%} of its steps the latent grid starts at the patch's corner, as it \
does for
  whole volumes; its phase is random in the others.
- The weights are averages over steps (decay {run.ema_decay}).

Data: {data.subjects} synthetic T1w heads painted on {label_maps} SynthSeg label maps (Apache-2.0),
{data.near_1mm_share:.0%} of them at 0.9 to 1.1 mm, the rest from 0.7 to 2 mm or in slices of up to
{data.slice_mm[1]:g} mm, their axes tilted by up to {data.max_tilt_deg:g} degrees; with \
{data.real_share:.0%} of the
patches from real scans:

{real}

Files, addresses and hashes are in `data_manifests/`. Skull-stripped and raw heads were seen, no
CT.

## What it reaches

Native grid in and out, in the brain or head of subjects it never saw. "Best linear" is the
best linear codec that keeps as many numbers (the low-pass DCT ball counts, the oracle not).

{kinds}

{table}

Recorded at commit `{newest.commit}`, {newest.device}, {newest.recorded_at:%Y-%m-%d}.

## What it cannot do

- It keeps one number for eight 1 mm voxels, so it blurs: look at the error maps before use.
- It is a research example, not a medical device, and was never tested for any clinical use.
- T1w brain MRI is all it has seen. Other contrasts, other organs and CT go through it too; how
  well was not measured.
- Detail finer than the encoded voxels is a guess of the network, not a measurement.
- The closed-form projection does most of the work; `linear_only=True` shows what it does alone.
- Few people on few scanners among the real scans: nothing here speaks of fairness over ages,
  scanners or populations.
"""

SHALLOWER = (
    ", begun from the weights of a shallower model ({step:,} steps in {minutes:.0f} minutes, "
    "commit `{commit}`)"
)
CONTINUED = (
    ", continued from {count} earlier runs of {steps:,} steps and {minutes:.0f} minutes in all, "
    "the first of which began at commit `{commit}`"
)
KINDS = {"brain": "skull-stripped brains", "head": "raw heads"}
SCANS = "- {count} {what} of `{name}` ({share:.0%}; {licence}; {cite})"
THICK = (
    "- {data.thick_share:.0%} of patches of thin voxels were averaged to slices of "
    "{data.thick_mm[0]:g} to {data.thick_mm[1]:g} mm along a random axis"
)


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


def kinds_table(frame: pd.DataFrame, arm: str) -> str:
    """One Markdown row per kind of scan: mean PSNR of a release and mean gain over its subjects."""
    table = wide(frame)
    table = table[(table["condition"] == NATIVE) & (table["arm"] == arm)]
    kinds = table["subject"].map(_kinds()).fillna("synthetic heads")
    lines = [
        f"| kind | scans | MedIL PSNR (dB) | best linear (dB) | {GAIN} |",
        "| --- | --- | --- | --- | --- |",
    ]
    for kind, own in table.groupby(kinds, sort=False):
        means = own[["psnr", "rival_db", "gain_db"]].mean()
        lines.append(
            f"| {kind} | {len(own)} | {means.psnr:.2f} | {means.rival_db:.2f} "
            f"| {means.gain_db:+.2f} |"
        )
    return "\n".join(lines)


def _kinds() -> dict[str, str]:
    """Kind and data set of each real test scan, by its public name."""
    every = [entry for name in REAL for entry in entries(name, "test")]
    return {name_of(e): f"{KINDS[e.kind]} of `{e.dataset}`" for e in every}


def trained_on(facts: dict, threads: int) -> str:
    """The hardware of the run; early runs on one CPU thread did not record it."""
    devices = dict.fromkeys(call["device"] for call in facts.get("calls", ()))
    if any("CPU" not in name for name in devices):
        return " and ".join(f"one {name}" for name in devices)
    return f"{threads} thread(s) of a CPU"


def earlier_run(facts: dict, sentence: str) -> str:
    """A sentence about the run that initialised these weights; empty if they began from scratch."""
    if not (earlier := facts.get("earlier")):
        return ""
    which = "All networks" if earlier.get("whole") else "The coarser networks"
    return sentence.format(which=which, **earlier)


def chain(facts: dict) -> list[dict]:
    """The facts of every run behind some weights, the last run first."""
    return [facts, *chain(facts["earlier"])] if facts.get("earlier") else [facts]


def earlier_runs(facts: dict) -> str:
    """How the runs before the last one led to its weights; empty if there was none."""
    _, *before = chain(facts)
    if not before:
        return ""
    if len(before) == 1:
        return earlier_run(facts, SHALLOWER)
    steps, minutes = (sum(run[name] for run in before) for name in ("step", "minutes"))
    commit = before[-1]["commit"]
    return CONTINUED.format(count=len(before), steps=steps, minutes=minutes, commit=commit)


def real_scans(data: DataConfig) -> str:
    """Markdown items: real scans by kind, with their share of real patches, source and licence."""
    if not data.mix:  # weights from before kinds were told apart
        return SCANS.format(what="raw heads", share=1.0, **_source("open_ms_t1", "head"))
    weights, lines = data.weights(), []
    for kind, weight in weights.items():
        share = weight / sum(weights.values())
        for name in REAL:
            source = _source(name, kind)
            if source["count"]:
                lines.append(SCANS.format(what=KINDS[kind], share=share, **source))
    if data.thick_share:
        lines.append(THICK.format(data=data))
    return "\n".join(lines)


def _source(name: str, kind: str) -> dict[str, object]:
    """Count, name, licence and citation of a data set's train scans of a kind."""
    found = [entry for entry in entries(name, "train") if entry.kind == kind]
    first = entries(name, "train")[0]
    return {"count": len(found), "name": name, "licence": first.licence, "cite": first.citation}


def about_weights(
    model: MedIL | LatentFlow | AppearanceFlow | TissueNet, file: str, threads: int
) -> dict[str, object]:
    """What every card says of weights: their size and their training."""
    return {
        "weights": short_digest(weights_sha256(model)),
        "facts": model.facts,
        "parameters": sum(p.numel() for p in model.parameters()),
        "megabytes": release_path(file).stat().st_size / 1e6,
        "trained_on": trained_on(model.facts, threads),
        "label_maps": len(entries("synthseg_labels", "train")),
    }


def card(name: str, model: MedIL, frame: pd.DataFrame) -> str:
    """The card of release `name` in Markdown, from its model and prepared reconstruction rows.

    Raises:
        InputError: No row of these weights yet.
    """
    own = frame[(frame["experiment"] == NAME) & (frame["arm"] == release_arm(name))]
    own = recorded_rows(own, EXPERIMENT)
    config = release_config(name)
    learned = "closed-form projection plus learned residual"
    return TEXT.format(
        name=name,
        encoder=learned if config.model.closed_form else "learned",
        config=config,
        run=config.train,
        data=config.data,
        patch_mm=" or ".join(f"{side:g}" for side in config.train.patch_sides_mm),
        earlier=earlier_runs(model.facts),
        real=real_scans(config.data),
        kinds=kinds_table(frame, release_arm(name)),
        table=results_table(frame, release_arm(name)),
        newest=own.sort_values("recorded_at").iloc[-1],
        **about_weights(model, name, config.train.threads),
    )


def recorded_rows(own: pd.DataFrame, experiment: Experiment) -> pd.DataFrame:
    """The rows of a release.

    Raises:
        InputError: There is none.
    """
    if own.empty:
        raise InputError(f"no row of this release yet; run {experiment.command} first.")
    return own


def write_card(
    arguments: Sequence[str] | None, experiment: Experiment, file: str,
    load: Callable[[str], Any], card: Callable[[str, Any, pd.DataFrame], str],
) -> int:  # fmt: skip
    """The command that writes a card beside its weights; 0, or 2 after one sentence.

    `file` is the card's name, with a place for the release's; `load` reads the release of a name,
    and `card` makes the text from its name, the release and the experiment's prepared rows.
    """
    parser = argparse.ArgumentParser(description="Write the model card of a release.")
    parser.add_argument("--release", default="tiny", help="which released weights (tiny)")
    parser.add_argument("--rows", type=Path, default=RESULTS, help="folder of recorded rows")
    options = parser.parse_args(arguments)
    try:
        frame = experiment.recorded(options.rows)
        if frame is None:
            raise InputError(f"no rows of {experiment.name}; run {experiment.command} first.")
        text = card(options.release, load(options.release), frame)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    with atomic_output(RELEASES / file.format(options.release), force=True) as temporary:
        temporary.write_text(text)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the card of an autoencoder."""
    return write_card(arguments, EXPERIMENT, "{}.md", load_release, card)


if __name__ == "__main__":
    raise SystemExit(main())
