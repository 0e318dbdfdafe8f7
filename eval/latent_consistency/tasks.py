"""One task a head, and one for the distance between heads; findings become rows."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from functools import partial

from eval import rows
from eval.coders.base import loaded, release_arm
from eval.latent_consistency import conditions as names
from eval.latent_consistency.conditions import BANDS_PER_MM, DIFFERENCES, NAME, SAME, WHOLE
from eval.latent_consistency.heads import Head, heads
from eval.latent_consistency.measure import Finding, between, measure, moves, places_of, references
from eval.runner import Task
from medil.model.base import LatentAutoencoder
from medil.model.weights import weights_sha256


def tasks(options: argparse.Namespace, provenance: rows.Provenance) -> list[Task]:
    """The distances between heads, which are the unit of all others, then every head.

    A head's numbers do not depend on who else is measured, so a larger profile adds heads
    to those that a smaller one has recorded.
    """
    release, people = options.release, heads(options.profile)
    model, cohort = loaded(release), [h.data_sha256 for h in people]
    between_heads = conditions_between(model)
    apart = [identities(release, h, between_heads, cohort) for h in people]
    work = partial(rows_between, release, tuple(people), provenance)
    found = [Task("all heads", frozenset().union(*apart), work)]
    for head in people:
        wanted = identities(release, head, conditions_of(model, head.content_mm))
        work = partial(rows_of, release, head, provenance)
        found.append(Task(head.name, wanted, work))
    return found


def conditions_of(model: LatentAutoencoder, content_mm: float) -> dict[str, Sequence[str]]:
    """Every condition that a head of this voxel size is measured in, with its metrics."""
    compared = [f"{c} -> {n}" for c, places in places_of(content_mm).items() for n in places]
    compared += [f"{WHOLE} -> {names.off(mm)}" for mm in names.HEADER_MM]
    scored = [names.rendered(names.off(mm) if mm else "") for mm in names.HEADER_MM]
    if model.config.closed_form:
        other_cells = (names.TRANSPORTED, names.SHIFTED_CELLS, names.TURNED)
        compared += [f"{SAME} -> {name}" for name in other_cells]
        turns = [names.turned_by(deg) for deg in names.HEADER_DEG]
        compared += [f"{WHOLE} -> {name}" for name in turns]
        scored += [names.rendered(name) for name in (names.TRANSPORTED, *turns)]
    if moves(content_mm):
        there = [names.truly(mm) for mm in names.HEADER_MM[1:]]
        moved = [names.moved(mm) for mm in names.HEADER_MM[1:]]
        compared += [f"{WHOLE} -> {name}" for name in (*there, *moved)]
        scored += [names.rendered(name) for name in there]
    if "coarse" in names.parts(model):
        scored.append(names.rendered(names.COARSE_OF_2_MM))
    return in_parts(model, compared) | {condition: ("psnr",) for condition in scored}


def conditions_between(model: LatentAutoencoder) -> dict[str, Sequence[str]]:
    """The conditions that compare heads, with their metrics."""
    return in_parts(model, [f"{c} -> {names.ANOTHER}" for c in (WHOLE, *BANDS_PER_MM)])


def in_parts(model: LatentAutoencoder, compared: Iterable[str]) -> dict[str, Sequence[str]]:
    """Conditions of compared latents, for all channels and for the coarse one alone."""
    return {f"{c} | {part}": DIFFERENCES for c in compared for part in names.parts(model)}


def measurements(
    release: str, head: Head, conditions: Iterable[str], cohort: Sequence[str] = ()
) -> dict[tuple[str, str], rows.Measurement]:
    """What is measured of a head, by arm and condition.

    `release` is a name or a file of weights; `cohort` holds the hashes of all heads where they are
    compared.
    """
    model, about = loaded(release), {}
    for arm in names.arms(model, release_arm(release)):
        digests = names.config_hash(model, arm, cohort), head.data_sha256, weights_sha256(model)
        for condition in conditions:
            about[arm, condition] = rows.Measurement(NAME, head.name, arm, condition, *digests)
    return about


def identities(
    release: str, head: Head, asked: dict[str, Sequence[str]], cohort: Sequence[str] = ()
) -> frozenset[rows.Identity]:
    """The identities of the rows of one head."""
    every = measurements(release, head, asked, cohort)
    return rows.identities((about, asked[about.condition]) for about in every.values())


def rows_of(release: str, head: Head, provenance: rows.Provenance) -> list[rows.Row]:
    """Measure one head."""
    found = measure(loaded(release), head.load(), release_arm(release))
    return as_rows(release, head, found, provenance)


def rows_between(
    release: str, people: Sequence[Head], provenance: rows.Provenance
) -> list[rows.Row]:
    """Measure how far heads lie apart, which is the unit of all distances."""
    model, arm = loaded(release), release_arm(release)
    blocks, latents = [], []
    for head in people:
        content = head.load()
        blocks.append(content.block)
        latents.append(references(model, content, arm))
    cohort = [h.data_sha256 for h in people]
    return [
        row
        for head, found in zip(people, between(model, blocks, latents, arm), strict=True)
        for row in as_rows(release, head, found, provenance, cohort)
    ]


def as_rows(
    release: str,
    head: Head,
    found: Iterable[Finding],
    provenance: rows.Provenance,
    cohort: Sequence[str] = (),
) -> list[rows.Row]:
    """Findings about one head as rows; `cohort` as for `measurements`."""
    model, found = loaded(release), list(found)
    about = measurements(release, head, {f.condition for f in found}, cohort)
    made = []
    for f in found:
        kept = model.config.latent_channels * f.cells.n_voxels
        sampling = rows.Sampling.of(f.scanned, f.seen_on, kept)
        values = {f.metric: f.value}
        made += about[f.arm, f.condition].rows(values, names.UNITS, sampling, f.time_s, provenance)
    return made
