"""Which operator learns best: arms x seeds x held-out subjects x voxel sizes, fairly paired.

    python -m eval.ablation --profile quick      # two arms, minutes, its own folder
    python -m eval.ablation --profile gpu        # the recorded comparison
    python -m eval.ablation --arms integrated literal --seeds 1 --steps 300

Each run trains one arm with one seed (`eval.arms.train`) and scores two snapshots of it,
at equal steps and at equal computing time. A run that is recorded is not run again, and an
interrupt loses at most the run it falls into. Linear codecs of equal size are scored on the
same blocks. `python -m eval.ablation.report` makes tables and verdict.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from eval import rows
from eval.ablation.blocks import (
    FOLDER,
    N_MADE,
    PLACES,
    TRAIN_SEED,
    VERSION,
    WHOLE,
    Question,
    training_heads,
)
from eval.ablation.blocks import questions as scored_blocks
from eval.ablation.codecs import record_codecs
from eval.ablation.score import (
    DEFINITION,
    EXPERIMENT,
    answer,
    patch_difference,
    row,
    scores,
    snapshot_rows,
)
from eval.arms.catalogue import ARMS, LEARNED, all_learned
from eval.arms.train import (
    STAGES,
    Diverged,
    Snapshot,
    Trained,
    clock,
    recipe,
    staged,
    train_arm,
)
from medil.config import RunConfig
from medil.errors import InputError
from medil.model.weights import weights_sha256
from medil.training.patches import Scan

RUN = "ablation-run"
BUDGETS = ("equal steps", "equal compute")
REFERENCE = "integrated"
FIRST = ("integrated", "trilinear", "subpixel", "literal", "conv-1mm", "resizing")
COUNTS = {  # options that are counts -> what they count
    "steps": "of each run",
    "seeds": "from 0 on",
    "heads": "to train on",
    "subjects": "to score",
    "places": "blocks of each subject to score",
}
QUICK_OUT = Path("_build/ablation/quick")


@dataclass(frozen=True)
class Plan:
    """What is run: arms by name, how long, how often, on how much."""

    arms: tuple[str, ...]
    steps: int
    seeds: int
    heads: int  # to train on
    subjects: int  # to score
    places: int = PLACES  # blocks of each subject

    def __post_init__(self) -> None:
        for name in COUNTS:
            if getattr(self, name) < 1:
                raise InputError(f"--{name} must be at least 1, not {getattr(self, name)}.")
        if self.subjects > 1 + N_MADE:
            raise InputError(f"there are {1 + N_MADE} subjects to score, not {self.subjects}.")
        if self.places > PLACES:
            raise InputError(f"a subject has {PLACES} blocks to score, not {self.places}.")
        for arm in self.arms:
            run_config(arm)


def run_config(arm: str) -> RunConfig:
    """Model and training settings of an arm such as ``literal/learned`` or ``integrated @both``.

    Raises:
        InputError: No such arm; the message lists those there are.
    """
    name, at, stage = arm.partition(" @")
    if name not in ARMS or at + stage not in STAGES:
        raise InputError(f"there is no arm {arm!r}; choose from {', '.join(all_arms())}.")
    return staged(RunConfig("ablation", ARMS[name], recipe()), at + stage)


def all_arms() -> list[str]:
    """Every arm, those that matter most first: what an interrupted night should hold."""
    first = [name + ending for ending in ("", LEARNED) for name in FIRST if name + ending in ARMS]
    stages = [REFERENCE + LEARNED + stage for stage in STAGES if stage]  # where they differ
    others = [name for name in ARMS if name not in first]
    return [*first, *stages, *others]


def reference_of(arm: str) -> str:
    """The arm whose computing time is an arm's budget: the default one, same shortcut."""
    return REFERENCE + LEARNED * all_learned(arm)


PROFILES = {
    # name         arms, steps, seeds, heads, subjects
    # quick: without the shortcut, which so few steps hardly leave, so that arms differ
    "quick": lambda: Plan((REFERENCE + LEARNED, "trilinear" + LEARNED), 150, 2, 4, 4),
    "gpu": lambda: Plan(tuple(all_arms()), 600, 3, 16, 1 + N_MADE),
    "paper": lambda: Plan(tuple(all_arms()), 6000, 5, 16, 1 + N_MADE),
}


# Runs


def run_rows(
    arm: str, values: dict[str, tuple[float, str]], plan: Plan, device: str, question: Question,
    config_hash: str, weights: str, time_s: float, provenance: rows.Provenance,
) -> list[rows.Row]:  # fmt: skip
    """Rows about a run itself: speed, length, size, loss; their condition is the recipe."""
    about = f"{plan.steps} steps, {plan.heads} heads, {plan.places} blocks a subject, {device}"
    return [
        row(
            RUN,
            "training heads",
            arm,
            about,
            metric,
            value,
            unit,
            question,
            0,
            config_hash,
            weights,
            time_s,
            provenance,
        )
        for metric, (value, unit) in values.items()
    ]


def config_hash(arm: str, plan: Plan, device: str, subjects: Sequence[str]) -> str:
    """Digest of all that a run's numbers depend on, but for its seed."""
    data = [VERSION, TRAIN_SEED, plan.heads, sorted(set(subjects)), plan.places]
    config = run_config(arm)
    return rows.digest(
        [arm, asdict(config.model), asdict(config.train), plan.steps, device, data, DEFINITION]
    )


def record_run(
    arm: str, seed: int, scans: Sequence[Scan], found: Sequence[Question], plan: Plan,
    budget_s: float | None, path: Path, profile: str, device: str,
) -> int:  # fmt: skip
    """Train one arm with one seed, score both snapshots, and record all of it at once."""
    hashed = config_hash(arm, plan, device, [q.subject for q in found])
    config = run_config(arm)
    provenance = rows.Provenance.now(profile, seed, _device_name(device))
    started = time.perf_counter()
    try:
        trained = train_arm(
            config, scans, seed, plan.steps, budget_s, device, title=f"{arm}, seed {seed}"
        )
    except Diverged as error:
        values = {"diverged_at_step": (float(error.args[0]), "1")}
        time_s = time.perf_counter() - started
        about = (plan, device, found[0], hashed, "", time_s, provenance)
        return rows.append_rows(path, run_rows(arm, values, *about))
    time_s, started_cpu = time.perf_counter() - started, clock(device)
    new = _scored_rows(arm, trained, found, config, hashed, provenance)
    weights = weights_sha256(trained.by_steps.model)
    values = {
        "cpu_s_per_step": (trained.cpu_s_per_step, "s"),
        "cpu_s_to_steps": (trained.by_steps.cpu_s, "s"),
        "voxels_per_s": (trained.voxels_per_s, "1/s"),
        "steps_at_equal_compute": (float(trained.by_time.steps), "1"),
        "parameters": (float(sum(p.numel() for p in trained.by_steps.model.parameters())), "1"),
        "training_loss": (trained.loss, "1"),
        "scoring_s": (clock(device) - started_cpu, "s"),
    }
    new += run_rows(arm, values, plan, device, found[0], hashed, weights, time_s, provenance)
    return rows.append_rows(path, new)


def _scored_rows(
    arm: str, trained: Trained, found: Sequence[Question], config: RunConfig, hashed: str,
    provenance: rows.Provenance,
) -> list[rows.Row]:  # fmt: skip
    pitch_mm, channels = config.model.latent_spacing_mm, config.model.latent_channels

    def numbers(q: Question) -> int:
        return channels * q.latent_grid(pitch_mm).n_voxels

    new, done = [], {}  # the reference's two snapshots are one
    for budget, shot in zip(BUDGETS, (trained.by_steps, trained.by_time), strict=True):
        weights = weights_sha256(shot.model)
        if weights not in done:
            done[weights] = scores(found, lambda q, shot=shot: answer(shot.model, q))
        new += snapshot_rows(arm, budget, done[weights], numbers, hashed, weights, provenance)
    if arm.partition(" @")[0] == reference_of(arm):
        new += _patch_rows(arm, trained.by_steps, found, numbers, hashed, provenance)
    return new


def _patch_rows(
    arm: str, shot: Snapshot, found: Sequence[Question], numbers: Callable, hashed: str,
    provenance: rows.Provenance,
) -> list[rows.Row]:  # fmt: skip
    weights = weights_sha256(shot.model)
    return [
        row(
            EXPERIMENT,
            q.subject,
            arm,
            f"1 mm, {BUDGETS[0]}",
            "patch_vs_whole",
            patch_difference(shot.model, q),
            "%",
            q,
            numbers(q),
            hashed,
            weights,
            0.0,
            provenance,
        )
        for q in found
        if q.condition == WHOLE
    ]


def recorded_runs(path: Path) -> dict[tuple[str, str, int], dict[str, float]]:
    """What a rows file holds of runs: (arm, config hash, seed) -> their metrics."""
    if not any(part.stat().st_size for part in rows.parts(path)):
        return {}
    frame = rows.read_rows(path)
    found: dict[tuple[str, str, int], dict[str, float]] = {}
    for r in frame[frame["experiment"] == RUN].itertuples():
        found.setdefault((r.arm, r.config_hash, int(r.seed)), {})[r.metric] = r.value
    return found


def run(plan: Plan, out: Path, data: Path, profile: str, device: str, workers: int) -> int:
    """Run what is not yet recorded, seed by seed, the reference arms first; rows added."""
    path = rows_file(out)
    found = first_places(scored_blocks(plan.subjects, data, workers), plan.places)
    provenance = rows.Provenance.now(profile, 0, _device_name("cpu"))
    added = record_codecs(found, plan.places, path, provenance)
    scans = training_heads(plan.heads, data, workers)
    subjects = [q.subject for q in found]
    for seed in range(plan.seeds):
        for arm in _with_references(plan.arms):
            done, reference = recorded_runs(path), reference_of(arm)
            if (arm, config_hash(arm, plan, device, subjects), seed) in done:
                continue
            budget_s = None
            if arm != reference:
                key = (reference, config_hash(reference, plan, device, subjects), seed)
                budget_s = done[key].get("cpu_s_to_steps")  # None if the reference diverged
            added += record_run(arm, seed, scans, found, plan, budget_s, path, profile, device)
    return added


def first_places(found: Sequence[Question], places: int) -> list[Question]:
    """The first so many blocks of each subject and condition."""
    count: Counter[tuple[str, str]] = Counter()
    kept = []
    for question in found:
        key = (question.subject, question.condition)
        count[key] += 1
        if count[key] <= places:
            kept.append(question)
    return kept


def _with_references(arms: Sequence[str]) -> list[str]:
    """The arms, each preceded by the one that sets its computing time."""
    ordered: list[str] = []
    for arm in arms:
        ordered += [a for a in (reference_of(arm), arm) if a not in ordered]
    return ordered


def rows_file(out: Path) -> Path:
    """The rows of this experiment in a folder, which is made."""
    out.mkdir(parents=True, exist_ok=True)
    return out / f"{EXPERIMENT}.jsonl"


def _device_name(device: str) -> str:
    return device if device == "cpu" else torch.cuda.get_device_name()


def main(arguments: list[str] | None = None) -> int:
    """The command line; 0, 2 after one sentence about bad input, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m eval.ablation", description=__doc__)
    parser.add_argument("--profile", choices=tuple(PROFILES), default="quick")
    parser.add_argument(
        "--arms", nargs="+", metavar="ARM", help="as in eval.arms.catalogue (the profile's)"
    )
    for name, what in COUNTS.items():
        parser.add_argument(f"--{name}", type=int, help=f"{what} (the profile's)")
    parser.add_argument("--out", type=Path, help="folder of the rows")
    parser.add_argument("--data", type=Path, default=FOLDER, help="folder of heads and blocks")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--workers", type=int, default=1, help="processes that draw heads")
    options = parser.parse_args(arguments)
    try:
        return _main(options)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped; what was recorded stays, and the same command goes on", file=sys.stderr)
        return 130


def _main(options: argparse.Namespace) -> int:
    from eval.ablation.report import agreement

    if options.device == "cuda" and not torch.cuda.is_available():
        raise InputError("there is no device 'cuda' here; leave --device out.")
    quick = options.profile == "quick"
    chosen = PROFILES[options.profile]()
    given = {n: getattr(options, n) for n in COUNTS if getattr(options, n) is not None}
    arms = tuple(options.arms) if options.arms else chosen.arms
    plan = Plan(**{**vars(chosen), **given, "arms": arms})
    out = options.out or (QUICK_OUT if quick else rows.RESULTS)
    torch.set_num_threads(1)
    added = run(plan, out, options.data, options.profile, options.device, options.workers)
    print(f"{added} new rows in {EXPERIMENT}.jsonl")
    recorded = rows.RESULTS / f"{EXPERIMENT}.jsonl"
    if quick and rows.parts(recorded) and out.resolve() != rows.RESULTS.resolve():
        print(agreement(rows_file(out), recorded))
    return 0
