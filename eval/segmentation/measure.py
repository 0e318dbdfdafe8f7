"""Segment a brain in three ways and measure overlaps (Dice).

The arms are the network alone, the segmenter (the network, sharpened by intensities) and three
classes of intensity, which know no place. Painted heads have exact maps: the ten classes are
scored, and three tissues, into which classes of intensity fit. Real brains have none: there the
overlap with the classes of intensity is agreement and no accuracy.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from eval import rows
from eval.metrics.tissue import BINS, CLIP_PERCENTILES, TISSUES, dice
from eval.metrics.tissue import segment as by_intensity
from eval.runner import Task
from eval.segmentation.brains import Brain, brains
from medil.anatomy import intensities
from medil.anatomy.classes import CLASSES, NUMBER, LabelMap
from medil.anatomy.network import TissueNet
from medil.anatomy.segmenter import (
    at_one_mm,
    brain_shares,
    load_segmenter,
    load_segmenter_release,
)
from medil.model.weights import weights_sha256
from medil.volume import Volume

NAME = "segmentation"
NETWORK, SEGMENTER, INTENSITY = "network", "segmenter", "intensity"  # arms
EXACT = "exact map"  # what overlaps are measured with, or the classes of intensity
CLASS, TISSUE = "class", "tissue"
PARTS = {CLASS: {name: NUMBER[name] for name in CLASSES[1:]}, TISSUE: TISSUES}
UNITS = {"dice": "1"}
TISSUE_OF = {  # a thalamus is nearly as bright as white matter
    "csf": "csf", "lateral ventricles": "csf", "third and fourth ventricle": "csf",
    "cortex": "grey", "deep grey": "grey", "cerebellar cortex": "grey",
    "bright deep grey": "white", "white matter": "white", "cerebellar white matter": "white",
    "brainstem": "white",
}  # fmt: skip
DEFINITION = {"version": 1, "tissue_of": TISSUE_OF, "histogram": (BINS, CLIP_PERCENTILES)}
SHARPENING = (
    intensities.ROUNDS, intensities.PLACE, intensities.NEIGHBOURS, intensities.NEIGHBOUR_VOX,
    intensities.BLOCK_VOX, intensities.REACH_MM, intensities.LEAST_SPREAD, intensities.PRIOR_VOX,
)  # fmt: skip
Labels = dict[str, np.ndarray]  # `CLASS`, `TISSUE` or both -> [D, H, W] uint8


@dataclass(frozen=True)
class Arm:
    """A way to segment, with the hashes of its settings and weights."""

    name: str
    config_hash: str
    weights_sha256: str

    def kinds(self, is_painted: bool) -> tuple[str, ...]:
        """What it is scored by on a painted or a real brain."""
        if self.name == INTENSITY:
            return (TISSUE,) if is_painted else ()
        return (CLASS, TISSUE) if is_painted else (TISSUE,)


def network_of(release: str) -> TissueNet:
    """A released network by name, or weights by path.

    Raises:
        InputError: No such weights.
    """
    if release.endswith(".safetensors"):
        return load_segmenter(Path(release))
    return load_segmenter_release(release)


def arms(network: TissueNet) -> list[Arm]:
    """The network, the segmenter and the classes of intensity."""
    weights, shape = weights_sha256(network), asdict(network.config)
    return [
        Arm(NETWORK, rows.digest([DEFINITION, shape]), weights),
        Arm(SEGMENTER, rows.digest([DEFINITION, shape, SHARPENING]), weights),
        Arm(INTENSITY, rows.digest([DEFINITION]), rows.NO_WEIGHTS),
    ]


def condition(is_painted: bool, kind: str, part: str) -> str:
    """The condition in the rows, such as ``exact map | class | cortex``."""
    return f"{EXACT if is_painted else INTENSITY} | {kind} | {part}"


def factors(conditions: pd.Series) -> pd.DataFrame:
    """What the map is compared with, whether classes or tissues are, and which."""
    split = conditions.str.split(" | ", expand=True, regex=False)
    return split.set_axis(["against", "kind", "part"], axis="columns")


def measurements(brain: Brain, arm: Arm) -> Iterator[tuple[str, str, rows.Measurement]]:
    """Kind, part and measurement of all that an arm is scored by on a brain."""
    for kind in arm.kinds(brain.is_painted):
        for part in PARTS[kind]:
            question = condition(brain.is_painted, kind, part)
            yield kind, part, rows.Measurement(
                NAME, brain.name, arm.name, question, arm.config_hash, brain.data_sha256,
                arm.weights_sha256,
            )  # fmt: skip


def tasks(options: argparse.Namespace, provenance: rows.Provenance) -> list[Task]:
    """One task a brain."""
    scored = arms(network_of(options.release))
    return [
        Task(
            brain.name,
            wanted(brain, scored),
            partial(measure, brain, options.release, provenance),
        )
        for brain in brains(options.profile)
    ]


def wanted(brain: Brain, scored: list[Arm]) -> frozenset[rows.Identity]:
    """The identities of a brain's rows."""
    return rows.identities((m, UNITS) for arm in scored for _, _, m in measurements(brain, arm))


def measure(brain: Brain, release: str, provenance: rows.Provenance) -> list[rows.Row]:
    """Rows of one brain, arm by arm."""
    network = network_of(release)
    volume, exact = brain.load()
    found = segmented(volume, network)
    reference = labels_of(exact) if exact is not None else found[INTENSITY][0]
    target = volume.grid.covering(1.0)
    sampling = rows.Sampling.of(volume.grid, target, target.n_voxels)
    made = []
    for arm in arms(network):
        labels, time_s = found[arm.name]
        for kind, part, about in measurements(brain, arm):
            overlap = dice(reference[kind], labels[kind], PARTS[kind][part])
            made += about.rows({"dice": overlap}, UNITS, sampling, time_s, provenance)
    return made


def segmented(volume: Volume, network: TissueNet) -> dict[str, tuple[Labels, float]]:
    """Arm to its labels at 1 mm and its seconds."""
    started = time.perf_counter()
    data, _, brain = at_one_mm(volume)
    three = by_intensity(data.numpy(), brain.numpy())
    found = {INTENSITY: ({TISSUE: three}, time.perf_counter() - started)}
    started = time.perf_counter()
    shares = brain_shares(volume, network)
    asked_s = time.perf_counter() - started
    for name, rounds in ((NETWORK, 0), (SEGMENTER, intensities.ROUNDS)):
        started = time.perf_counter()
        labels = labels_of(shares.tissue_map(rounds))
        found[name] = labels, asked_s + time.perf_counter() - started
    return found


def labels_of(tissue_map: LabelMap) -> Labels:
    """The classes of a map, and the tissues that they count as."""
    table = np.array([0, *(TISSUES[TISSUE_OF[name]] for name in CLASSES[1:])], dtype=np.uint8)
    classes = tissue_map.labels.numpy()
    return {CLASS: classes, TISSUE: table[classes]}
