"""The card of a released tissue segmenter, measured when it is written.

    python -m eval.segmenter_card --release tiny

draws painted heads on the label maps of the `test` split into ``_build/painted``, segments them
and the real test brains, and writes ``medil/releases/NAME-segmenter.md``. No number is typed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from eval.card import trained_on
from medil.anatomy.classes import CLASSES, LabelMap
from medil.anatomy.config import segmenter_preset
from medil.anatomy.network import TissueNet
from medil.anatomy.painted import PaintedHead, draw_painted_heads, read_painted_head
from medil.anatomy.segmenter import RELEASE_NAME, at_one_mm, load_segmenter_release, segment
from medil.data.manifest import Entry, fetch, local_entries
from medil.data.releases import RELEASES, release_path
from medil.data.samples import LABEL_MAPS, label_map_paths
from medil.errors import InputError
from medil.grid import Grid
from medil.model.weights import short_digest, weights_sha256
from medil.synth.cohort import rician
from medil.system.files import atomic_output
from medil.volume import Volume, load

PAINTED = Path("_build/painted")
SIGMA = 0.02  # Rician noise of the painted test heads; white matter is near 0.9
LEVEL = 0.6  # of `PaintedHead.inside` where their outline is cut: some CSF stays
CLUSTERS = ("CSF", "grey matter", "white matter")
STEPS = 30  # of k-means, which has converged by then
OF_CLASS = {  # cluster that a class falls into: a thalamus is nearly as bright as white matter
    "csf": 0, "lateral ventricles": 0, "third and fourth ventricle": 0, "cortex": 1,
    "deep grey": 1, "cerebellar cortex": 1, "bright deep grey": 2, "white matter": 2,
    "cerebellar white matter": 2, "brainstem": 2,
}  # fmt: skip

TEXT = """# Model card: {name}

A tissue segmenter of this repository, trained by its own code: it gives every voxel of a
skull-stripped T1w brain one of ten classes (`medil.anatomy.segmenter.segment`).

## What it is

| | |
| --- | --- |
| parameters | {parameters:,} |
| file | {megabytes:.1f} MB, fp16 safetensors |
| network | a U-Net on blocks of 2 x 2 x 2 voxels of 1 mm: channels {widths} at 2, 4, 8, ... mm |
| weights | `{weights}` (first digits of their digest) |
| configuration | `{facts[config_hash]}` (inside the weights file) |

## How it was trained

{facts[step]:,} steps of {run.batch} patch(es) of {run.side_vox} x {run.side_vox} x {run.side_vox}
voxels in {facts[minutes]:.0f} minutes of a busy machine's clock on {trained_on}, seed
{facts[seed]}, commit `{facts[commit]}`; averaged weights (decay {run.ema_decay}).

Data: {facts[heads]} painted T1w heads with exact maps, drawn on {label_maps} SynthSeg label maps
(Apache-2.0) and varied in contrast, shading, blur, slice thickness, noise and the cut of the skull
stripping. No real scan, no map of the `test` split.

## What it reaches

Dice overlap with the exact map of {heads} painted heads on label maps of the `test` split:

{dice}

Real brains have no exact map. The floor is k-means with three clusters on the intensities inside
the brain mask; the overlap with it is no accuracy, since k-means takes deep grey for grey or
white matter and dark partial volumes for CSF:

{agreement}

## What it cannot do

- It needs a skull-stripped brain: air is what the scan has as air. What a stripping leaves of
  vessels, fat and dura gets a class of the brain.
- On real brains, by eye, the thalamus is a block that takes in much of the internal capsule, thin
  blades of white matter and narrow sulci become cortex, and what is left of vessels below the
  brain becomes cerebellum or CSF. It is a first release, trained for a short time;
  `medil train-segmenter --from` goes on from these weights.
- Lesions count as white matter; left and right are not told apart.
- It is a research example, not a medical device, and was never tested for any clinical use.
"""


def dice(one: Tensor, other: Tensor) -> float:
    """Twice the overlap of two masks over the sum of their sizes; NaN where both are empty.

    Example:
        >>> dice(torch.tensor([True, True, False]), torch.tensor([True, False, False]))
        0.6666666666666666
    """
    total = int(one.sum() + other.sum())
    return 2 * int((one & other).sum()) / total if total else float("nan")


def stripped(head: PaintedHead, seed: int) -> tuple[Volume, LabelMap]:
    """A painted head with noise, cut at `LEVEL`, and its exact map."""
    grid = Grid.from_spacing(head.size_vox, 1.0)
    kept = (head.inside > 255 * LEVEL) & (head.labels > 0)
    noisy = rician(head.data.float(), SIGMA, np.random.default_rng(seed))
    data = torch.where(kept, noisy.clamp(min=1e-3), 0.0)
    return Volume(data, grid), LabelMap(torch.where(kept, head.labels, 0), grid)


def painted_dice(network: TissueNet, heads: Sequence[PaintedHead]) -> np.ndarray:
    """[heads, classes without air] Dice with the exact maps."""
    rows = []
    for seed, head in enumerate(heads):
        scan, truth = stripped(head, seed)
        found = segment(scan, network)
        rows.append([dice(found.is_class(n), truth.is_class(n)) for n in CLASSES[1:]])
    return np.array(rows)


def clusters(values: np.ndarray) -> np.ndarray:
    """The cluster of each of [N] intensities, by k-means with one centre a tissue, dark first."""
    centres = np.quantile(values, [0.1, 0.5, 0.9])
    for _ in range(STEPS):
        middles = (centres[1:] + centres[:-1]) / 2
        found = np.searchsorted(middles, values)
        centres = np.array([values[found == k].mean() for k in range(len(centres))])
    return found


def agreement(scan: Volume, found: LabelMap) -> list[float]:
    """Dice of a map with k-means, cluster by cluster."""
    data, _, brain = at_one_mm(scan)
    by_brightness = torch.from_numpy(clusters(data[brain].numpy()))
    table = torch.tensor([-1] + [OF_CLASS[name] for name in CLASSES[1:]])
    mapped = table[found.labels[brain].int()]
    return [dice(mapped == k, by_brightness == k) for k in range(len(CLUSTERS))]


def held_out_brains() -> Iterator[Entry]:
    """The skull-stripped test brains that are on this computer."""
    for name in ("ds002748", "open_ms_t1"):
        yield from (entry for entry in local_entries(name, "test") if entry.kind == "brain")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def card(name: str, folder: Path = PAINTED) -> str:
    """The card of release `name` in Markdown, measured now.

    Raises:
        InputError: The label maps or the weights are not here.
    """
    network = load_segmenter_release(name)
    numbers = range(len(label_map_paths("test")))
    heads = [read_painted_head(p) for p in draw_painted_heads("test", numbers, folder)]
    overlaps = painted_dice(network, heads)
    brains = []
    for entry in held_out_brains():
        scan = load(fetch(entry))
        overlap = agreement(scan, segment(scan, network))
        brains.append([f"`{entry.dataset}` {entry.subject}", *(f"{d:.3f}" for d in overlap)])
    file, run = RELEASE_NAME.format(name), segmenter_preset(name).train
    columns = zip(CLASSES[1:], overlaps.T, strict=True)
    return TEXT.format(
        name=file,
        parameters=sum(p.numel() for p in network.parameters()),
        megabytes=release_path(file).stat().st_size / 1e6,
        widths=", ".join(map(str, network.config.widths)),
        weights=short_digest(weights_sha256(network)),
        facts=network.facts,
        run=run,
        trained_on=trained_on(network.facts, run.threads),  # type: ignore[arg-type]
        label_maps=len(local_entries(LABEL_MAPS, "train")),
        heads=len(heads),
        dice=table(
            ["class", "mean", "lowest", "highest"],
            [[c, *(f"{v:.3f}" for v in (d.mean(), d.min(), d.max()))] for c, d in columns],
        ),
        agreement=table(["brain", *CLUSTERS], brains),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the card; 0, or 2 after one sentence."""
    parser = argparse.ArgumentParser(description="Measure a segmenter and write its card.")
    parser.add_argument("--release", default="tiny", help="which released weights (tiny)")
    parser.add_argument("--painted", type=Path, default=PAINTED, help="folder of painted heads")
    options = parser.parse_args(arguments)
    try:
        text = card(options.release, options.painted)
        path = RELEASES / f"{RELEASE_NAME.format(options.release)}.md"
        with atomic_output(path, force=True) as temporary:
            temporary.write_text(text, "utf-8")
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
