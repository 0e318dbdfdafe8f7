"""The model card of a released tissue segmenter, from its weights and recorded rows.

    python -m eval.segmentation.card --release tiny

writes ``medil/releases/NAME-segmenter.md``. Every number comes from the weights or a row.
"""

from __future__ import annotations

import pandas as pd

from eval.card import about_weights, chain, earlier_run, recorded_rows, write_card
from eval.segmentation import EXPERIMENT
from eval.segmentation.measure import SEGMENTER
from eval.segmentation.report import brains_table, classes_table, verdict
from eval.tables import piped
from medil.anatomy.config import segmenter_preset
from medil.anatomy.network import TissueNet
from medil.anatomy.segmenter import RELEASE_NAME, load_segmenter_release
from medil.model.weights import weights_sha256

TEXT = """# Model card: {name}

A tissue segmenter of this repository, trained by its own code: it gives every voxel of a
skull-stripped T1w brain one of ten classes (`medil.anatomy.segmenter.segment`).

## What it is

| | |
| --- | --- |
| parameters | {parameters:,} |
| file | {megabytes:.1f} MB, fp16 safetensors |
| network | a U-Net on blocks of 2 x 2 x 2 voxels of 1 mm: channels {widths} at 2, 4, 8, ... mm |
| after it | EM: slowly varying intensities of each class, and a Markov random field \
(`medil.anatomy.intensities`) |
| weights | `{weights}` (first digits of their digest) |
| configuration | `{facts[config_hash]}` (inside the weights file) |

## How it was trained

{facts[step]:,} steps of {run.batch} patch(es) of {run.side_vox} x {run.side_vox} x {run.side_vox}
voxels in {facts[minutes]:.0f} minutes of a busy machine's clock on {trained_on}, seed
{facts[seed]}, commit `{facts[commit]}`; averaged weights (decay {run.ema_decay}).{earlier}

Data: {facts[heads]} painted T1w heads with exact maps, drawn on {label_maps} SynthSeg label maps
(Apache-2.0) and varied in contrast, shading, blur, slice thickness, noise and the cut of the skull
stripping. No real scan, no map of the `test` split.

## What it reaches

{results}

Dice with the exact maps of painted heads on label maps of the `test` split. Painted classes have
slowly varying intensities, as the sharpening assumes; real ones may not:

{classes}

Agreement with three classes of intensity on real brains. It is no accuracy: intensity alone takes
deep grey for grey or white matter and dark partial volumes for CSF, and the segmenter uses
intensities too.

{brains}

Recorded at commit `{newest.commit}`, {newest.device}, {newest.recorded_at:%Y-%m-%d}.

## What it cannot do

- It needs a skull-stripped brain: air is what the scan has as air. What a stripping leaves of
  vessels, fat and dura gets a class of the brain.
- By eye, on four real brains and no more: the thalamus is a block that takes in much of the
  internal capsule, the putamen is too small, dark patches of cortex become CSF, and what is left
  below the brain becomes CSF, cortex or cerebellum.
- It is a first release, trained for a short time; `medil train-segmenter --from` goes on from these
  weights.
- Lesions count as white matter; left and right are not told apart.
- It is a research example, not a medical device, and was never tested for any clinical use.
"""
EARLIER = (
    " They began from the weights of an earlier run ({step:,} steps in {minutes:.0f} minutes, "
    "commit `{commit}`)."
)


def card(name: str, network: TissueNet, rows: pd.DataFrame) -> str:
    """The card of the segmenter released as `name`, in Markdown, from prepared rows.

    Raises:
        InputError: No row of these weights yet.
    """
    own = rows[(rows["arm"] == SEGMENTER) & (rows["weights_sha256"] == weights_sha256(network))]
    own = recorded_rows(own, EXPERIMENT)
    stem, run = RELEASE_NAME.format(name), segmenter_preset(name).train
    return TEXT.format(
        name=stem,
        run=run,
        widths=", ".join(map(str, network.config.widths)),
        earlier="".join(earlier_run(facts, EARLIER) for facts in chain(network.facts)[:-1]),
        results="\n".join(f"- {line}" for line in verdict(rows).splitlines()),
        classes=piped(classes_table(rows)),
        brains=piped(brains_table(rows)),
        newest=own.sort_values("recorded_at").iloc[-1],
        **about_weights(network, stem, run.threads),
    )


if __name__ == "__main__":
    raise SystemExit(
        write_card(None, EXPERIMENT, f"{RELEASE_NAME}.md", load_segmenter_release, card)
    )
