"""Does a head keep its latent when it is scanned on another grid, or at another resolution?

Two questions, kept apart. *Another grid*: the content holds nothing that a 1 mm scan could
miss (no wavelength below about 6 mm), so every grid carries the same information and the
latents should agree. *Another resolution*: the whole content, averaged over larger voxels;
here latents must differ, and the part that a coarse scan can know (the mean over a latent
cell) is judged apart from the rest. Distances are fractions of those between heads.

    python -m eval.consistency --profile quick
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from eval import rows
from eval.consistency_heads import Head, heads
from eval.consistency_latents import (
    DEFINITION,
    Measured,
    Pair,
    coders,
    latent_grid,
    measure,
    parts,
)
from eval.consistency_report import ANOTHER, EXPERIMENT, WHOLE, verdict
from eval.reconstruction import spacing_text
from medil.checkpoint import load_release
from medil.errors import InputError
from medil.shortcut import LatentAutoencoder

UNITS = {"latent_distance": "1", "latent_cosine": "1", "psnr": "dB"}


def distances(
    everyone: dict[str, Measured], channels: slice
) -> dict[tuple[str, str, str], tuple[float, float]]:
    """How far the latents of each pair lie apart, measured by how far heads do.

    Args:
        everyone: What was measured on each head, by name.
        channels: Which are compared.

    Returns:
        (head, arm, condition) to the distance, ||a - b|| over the mean of ||r_i - r_j|| over
        pairs of heads' references, and the cosine of a and b, centred. Centring, for each
        channel, takes off the mean over heads and cells; distances do not feel it. Where
        the condition is another head, both are means over the others. What a single head
        allows is left out.
    """
    found = {}
    for arm, condition in dict.fromkeys(key for m in everyone.values() for key in m.pairs):
        pairs = {
            name: m.pairs[arm, condition]
            for name, m in everyone.items()
            if (arm, condition) in m.pairs
        }
        if len(pairs) < 2:
            continue
        references = torch.stack([p.reference[channels] for p in pairs.values()]).double()
        centre = references.mean((0, 2), keepdim=True)[0]
        unit = torch.stack([(a - b).norm() for a, b in combinations(references, 2)]).mean()
        for index, (name, pair) in enumerate(pairs.items()):
            mine = references[index]
            others = [pair.other[channels].double()]
            if condition.endswith(ANOTHER):
                others = [r for k, r in enumerate(references) if k != index]
            apart = [((mine - z).norm() / unit).item() for z in others]
            angles = [cosine(mine - centre, z - centre) for z in others]
            found[name, arm, condition] = float(np.mean(apart)), float(np.mean(angles))
    return found


def cosine(a: Tensor, b: Tensor) -> float:
    """Of the angle between two latents, all numbers in one vector."""
    return (a.flatten() @ b.flatten() / (a.norm() * b.norm())).item()


def make_rows(
    model: LatentAutoencoder,
    people: Sequence[Head],
    everyone: dict[str, Measured],
    provenance: rows.Provenance,
) -> list[rows.Row]:
    """Every distance, cosine and PSNR as a row; head by head.

    Args:
        model: That was measured.
        people: The heads, all of them: distances are fractions of those between them.
        everyone: What was measured, by the heads' names.
        provenance: Of this run.

    Returns:
        The rows.
    """
    hashes = {head.name: head.data_sha256 for head in people}
    weights = rows.weights_digest(model)
    found = []

    def note(name: str, arm: str, condition: str, metric: str, value: float, pair: Pair) -> None:
        block = everyone[name].block
        cells = latent_grid(block, model.config.latent_spacing_mm)
        found.append(
            rows.Row(
                experiment=EXPERIMENT,
                subject=name,
                arm=arm,
                condition=condition,
                metric=metric,
                value=value,
                unit=UNITS[metric],
                spacing_in_mm=spacing_text(pair.grid),
                spacing_out_mm=spacing_text(block if metric == "psnr" else cells),
                numbers_kept=model.config.latent_channels * cells.n_voxels,
                n_voxels=pair.grid.n_voxels,
                config_hash=config_hash(model, people, arm),
                data_sha256=hashes[name],
                weights_sha256=weights,
                time_s=pair.time_s,
                recorded_at=rows.now_utc(),
                provenance=provenance,
            )
        )

    for part, channels in parts(model).items():
        for (name, arm, condition), values in distances(everyone, channels).items():
            pair = everyone[name].pairs[arm, condition]
            for metric, value in zip(("latent_distance", "latent_cosine"), values, strict=True):
                note(name, arm, f"{condition} | {part}", metric, value, pair)
    for name, measured in everyone.items():
        for (arm, condition), db in measured.psnr_db.items():
            note(name, arm, condition, "psnr", db, measured.pairs[arm, f"{WHOLE} -> 2 mm"])
    return found


def config_hash(model: LatentAutoencoder, people: Sequence[Head], arm: str) -> str:
    """Of the model's shape, the definitions, and who else is measured."""
    cohort = sorted(head.data_sha256 for head in people)
    return rows.digest([arm, asdict(model.config), cohort, DEFINITION])


def run(
    model: LatentAutoencoder, people: Sequence[Head], out: Path, provenance: rows.Provenance
) -> int:
    """Measure all heads and record them, unless these weights on these heads already are.

    Args:
        model: The release, or any other arm.
        people: From `heads`.
        out: Folder of the rows file; made if its parent exists.
        provenance: Of this run.

    Returns:
        How many rows were added.
    """
    path = rows_file(out)
    wanted = {
        (h.name, coder.name, config_hash(model, people, coder.name), rows.weights_digest(model))
        for h in people
        for coder in coders(model)
    }
    known = [dict(zip(rows.IDENTITY, r, strict=True)) for r in rows.recorded_identities(path)]
    fields = ("subject", "arm", "config_hash", "weights_sha256")
    if wanted <= {tuple(r[name] for name in fields) for r in known}:
        return 0
    everyone = {h.name: measure(model, h.load()) for h in tqdm(people, unit="head")}
    return rows.append_rows(path, make_rows(model, people, everyone, provenance))


def rows_file(out: Path) -> Path:
    """The rows of this experiment in a folder, which is made if its parent exists."""
    if not out.parent.is_dir():
        raise InputError(f"{out.parent} does not exist; make that folder first.")
    out.mkdir(exist_ok=True)
    return out / f"{EXPERIMENT}.jsonl"


def main(arguments: list[str] | None = None) -> int:
    """The command line; 0, or 2 after one sentence about bad input."""
    parser = argparse.ArgumentParser(prog="python -m eval.consistency", description=__doc__)
    parser.add_argument("--profile", choices=("quick", "gpu"), default="quick")
    parser.add_argument("--release", default="tiny", help="which released weights (tiny)")
    parser.add_argument("--out", type=Path, default=rows.RESULTS, help="folder of the rows")
    options = parser.parse_args(arguments)
    try:
        model = load_release(options.release)
        provenance = rows.Provenance.now(options.profile)
        added = run(model, heads(options.profile), options.out, provenance)
        told = verdict(rows.read_rows(rows_file(options.out)))
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{added} new rows in {EXPERIMENT}.jsonl")
    print(told)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
