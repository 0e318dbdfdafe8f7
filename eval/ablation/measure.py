"""What a profile trains and scores, and the rows of one run.

A run at equal computing time needs to know how long the reference arm of its seed took, so
runs go one after another, and each reads that time from the rows of those before it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import pandas as pd
import torch

from eval import rows, rows_file
from eval.ablation.blocks import FOLDER, PLACES, WHOLE, Question
from eval.ablation.codecs import codec_tasks
from eval.ablation.score import (
    DEFINITION,
    NAME,
    answer,
    measurement,
    patch_difference,
    sampling,
    score_rows,
    scores,
)
from eval.ablation.scored import questions, subject_count
from eval.ablation.training import TrainingSet
from eval.arms.catalogue import ARMS, LEARNED, all_learned, size_of
from eval.arms.train import GROUPED, STAGES, Diverged, Trained, clock, recipe, staged, train_arm
from eval.runner import Task
from medil.config import RunConfig
from medil.errors import InputError
from medil.model.weights import weights_sha256
from medil.training.patches import Scan

__all__ = ["NAME", "PROFILES", "QUICK_OUT", "RUN", "factors", "options", "tasks"]
RUN, CURVE = "ablation-run", "ablation-curve"
BUDGETS = ("equal steps", "equal compute")
REFERENCE = "integrated"
SHARES = (1 / 8, 1 / 4, 1 / 2, 1)  # of the steps, at which the curve of learning is read
CURVE_AT = "1 mm"
BOTH_ENDS = "literal-skip-both/learned"
FIRST = (  # arms that matter most: every seed of a line before the next line
    (BOTH_ENDS, "trilinear-both/learned", "integrated", "trilinear"),
    ("trilinear/learned", "literal-both/learned", "literal-skip/learned", "literal-skip"),
    (BOTH_ENDS + " @both", BOTH_ENDS + " @both+groups"),
)
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
        if self.subjects > subject_count():
            raise InputError(f"there are {subject_count()} subjects to score, not {self.subjects}.")
        if self.places > PLACES:
            raise InputError(f"a subject has {PLACES} blocks to score, not {self.places}.")
        for arm in self.arms:
            run_config(arm)

    def runs(self) -> Iterator[tuple[str, int]]:
        """(arm, seed): the arms that matter most first, with all their seeds.

        Each arm comes after the one that sets its computing time.
        """
        done: set[str] = set()
        for line in range(len(FIRST) + 1):
            arms = [arm for arm in self.arms if line_of(arm) == line]
            ordered = dict.fromkeys(a for arm in arms for a in (reference_of(arm), arm))
            todo = [arm for arm in ordered if arm not in done]
            yield from ((arm, seed) for seed in range(self.seeds) for arm in todo)
            done |= set(todo)


def line_of(arm: str) -> int:
    """The line of `FIRST` that holds an arm, or the one after the last."""
    return next((k for k, line in enumerate(FIRST) if arm in line), len(FIRST))


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
    first = [arm for line in FIRST for arm in line if arm.partition(" @")[0] in ARMS]
    stages = [REFERENCE + LEARNED + s for s in STAGES if s and s not in GROUPED]
    return list(dict.fromkeys([*first, *ARMS, *stages]))


def reference_of(arm: str) -> str:
    """The arm whose computing time is an arm's budget: the default one, same shortcut."""
    return REFERENCE + LEARNED * all_learned(arm)


PROFILES = {
    # name         arms, steps, seeds, heads, subjects
    # quick: without the shortcut, which so few steps hardly leave, so that arms differ
    "quick": lambda: Plan((REFERENCE + LEARNED, "trilinear" + LEARNED), 150, 2, 4, 4),
    "gpu": lambda: Plan(tuple(all_arms()), 6000, 3, 16, min(12, subject_count())),
    "paper": lambda: Plan(tuple(all_arms()), 30000, 5, 16, subject_count()),
}


def options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this experiment."""
    parser.add_argument("--arms", nargs="+", metavar="ARM", help="of eval.arms (the profile's)")
    for name, what in COUNTS.items():
        parser.add_argument(f"--{name}", type=int, help=f"{what} (the profile's)")
    parser.add_argument("--data", type=Path, default=FOLDER, help="folder of heads and blocks")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="to train on")


def plan_of(options: argparse.Namespace) -> Plan:
    """The profile's plan, with what the command line replaces."""
    if options.device == "cuda" and not torch.cuda.is_available():
        raise InputError("there is no device 'cuda' here; leave --device out.")
    changes = {n: getattr(options, n) for n in COUNTS if getattr(options, n) is not None}
    if options.arms:
        changes["arms"] = tuple(options.arms)
    return replace(PROFILES[options.profile](), **changes)


def factors(conditions: pd.Series) -> pd.DataFrame:
    """Voxel sizes, budget and steps.

    Codecs have no budget, runs only a recipe; points of a curve alone have steps, others NaN.
    """
    split, after = conditions.str.partition(", equal "), conditions.str.partition(", after ")
    budget = ("equal " + split[2]).where(split[2] != "", "")
    steps = pd.to_numeric(after[2].str.removesuffix(" steps"))
    spacing = split[0].where(steps.isna(), after[0])
    return pd.DataFrame({"spacing": spacing, "budget": budget, "steps": steps})


# Tasks


def tasks(options: argparse.Namespace, provenance: rows.Provenance) -> list[Task]:
    """One task a codec and subject, then one a run that is not recorded yet."""
    plan, device, processes = plan_of(options), options.device, options.workers or 1
    blocks = first_places(questions(plan.subjects, options.data, processes), plan.places)
    training = TrainingSet.at_hand(plan.heads)
    scans = training.scans(options.data, processes)
    hashes = {arm: config_hash(arm, plan, device, training, blocks) for arm, _ in plan.runs()}
    recorded = recorded_runs(options.path)
    sizes = list(dict.fromkeys(map(size_of, plan.arms)))
    made = codec_tasks(blocks, sizes, plan.places, provenance)
    for arm, seed in plan.runs():
        if (hashes[arm], seed) not in recorded:
            ours = hashes[arm], hashes[reference_of(arm)]
            run = Run(arm, seed, plan, device, *ours, str(training))
            name = torch.cuda.get_device_name() if device == "cuda" else device
            about = replace(provenance, seed=seed, device=name)
            measured = partial(measure, run, scans, blocks, options.path, about)
            made.append(Task(f"{arm}, seed {seed}", None, measured))
    return made


def config_hash(
    arm: str, plan: Plan, device: str, training: TrainingSet, blocks: Sequence[Question]
) -> str:
    """Digest of all that a run's numbers depend on, but for its seed."""
    scored = sorted({(q.subject, q.data_sha256) for q in blocks})
    data = [training.recipe, scored, plan.places]
    config = run_config(arm)
    return rows.digest(
        [arm, asdict(config.model), asdict(config.train), plan.steps, device, data, DEFINITION]
    )


def recorded_runs(path: Path) -> dict[tuple[str, int], dict[str, float]]:
    """What a rows file holds of runs: (config hash, seed) -> their metrics."""
    if not any(part.stat().st_size for part in rows_file.parts(path)):
        return {}
    frame = rows_file.read_rows(path)
    runs = frame[frame["experiment"] == RUN].groupby(["config_hash", "seed"])
    return {key: dict(zip(run["metric"], run["value"], strict=True)) for key, run in runs}


def first_places(blocks: Sequence[Question], places: int) -> list[Question]:
    """The first so many blocks of each subject and condition."""
    keys = pd.DataFrame([(q.subject, q.condition) for q in blocks])
    kept = keys.groupby([0, 1]).cumcount() < places
    return [question for question, keep in zip(blocks, kept, strict=True) if keep]


# Runs


@dataclass(frozen=True)
class Run:
    """One arm with one seed, the hashes of its configuration and of its reference's, its data."""

    arm: str
    seed: int
    plan: Plan
    device: str
    config_hash: str
    reference_hash: str
    data: str  # what it trains on, in words

    @property
    def curve(self) -> list[int]:
        """Steps after which the curve of learning is read."""
        return sorted({max(1, int(share * self.plan.steps)) for share in SHARES})

    def budget_s(self, path: Path) -> float | None:
        """Computing time of its reference; None of a reference itself, or if that diverged."""
        if self.config_hash == self.reference_hash:
            return None
        return recorded_runs(path)[self.reference_hash, self.seed].get("cpu_s_to_steps")


def measure(
    run: Run, scans: Sequence[Scan], blocks: Sequence[Question], path: Path,
    provenance: rows.Provenance,
) -> list[rows.Row]:  # fmt: skip
    """Train one arm with one seed and score both snapshots: rows of its scores and facts.

    The reference's computing time is looked up in the rows file, `path`. A run that diverged
    has one row, the step at which it did.
    """
    started = time.perf_counter()
    try:
        trained = train_arm(
            run_config(run.arm), scans, run.seed, run.plan.steps, run.budget_s(path), run.device,
            f"{run.arm}, seed {run.seed}", run.curve, run.arm.endswith(GROUPED),
        )  # fmt: skip
    except Diverged as error:
        values = {"diverged_at_step": (float(error.args[0]), "1")}
        return run_rows(run, values, blocks[0], "", time.perf_counter() - started, provenance)
    time_s, started_cpu = time.perf_counter() - started, clock(run.device)
    scored = _scored_rows(run, trained, blocks, provenance)
    scored += _curve_rows(run, trained, blocks, provenance)
    values = {
        "cpu_s_per_step": (trained.cpu_s_per_step, "s"),
        "cpu_s_to_steps": (trained.by_steps.cpu_s, "s"),
        "voxels_per_s": (trained.voxels_per_s, "1/s"),
        "steps_at_equal_compute": (float(trained.by_time.steps), "1"),
        "parameters": (float(sum(p.numel() for p in trained.by_steps.model.parameters())), "1"),
        "training_loss": (trained.loss, "1"),
        "scoring_s": (clock(run.device) - started_cpu, "s"),
    }
    weights = weights_sha256(trained.by_steps.model)
    return scored + run_rows(run, values, blocks[0], weights, time_s, provenance)


def run_rows(
    run: Run, values: dict[str, tuple[float, str]], question: Question, weights: str,
    time_s: float, provenance: rows.Provenance,
) -> list[rows.Row]:  # fmt: skip
    """Rows about a run itself: speed, length, size, loss; their condition is the recipe."""
    plan = run.plan
    recipe = f"{plan.steps} steps, {run.data}, {plan.places} blocks a subject, {run.device}"
    numbers = {metric: value for metric, (value, _) in values.items()}
    units = {metric: unit for metric, (_, unit) in values.items()}
    about = replace(
        measurement(question, run.arm, recipe, run.config_hash, weights),
        experiment=RUN, subject="training heads",
    )  # fmt: skip
    return about.rows(numbers, units, sampling(question, 0), time_s, provenance)


def _scored_rows(
    run: Run, trained: Trained, blocks: Sequence[Question], provenance: rows.Provenance
) -> list[rows.Row]:
    """Both snapshots on every block; of a reference also patches against the whole."""
    numbers = partial(Question.latent_numbers, size=size_of(run.arm))
    made, done = [], {}  # the reference's two snapshots are one
    for budget, shot in zip(BUDGETS, (trained.by_steps, trained.by_time), strict=True):
        weights = weights_sha256(shot.model)
        if weights not in done:
            done[weights] = scores(blocks, partial(answer, shot.model))
        made += score_rows(
            run.arm, budget, done[weights], numbers, run.config_hash, weights, provenance
        )
    if run.arm.partition(" @")[0] != reference_of(run.arm):
        return made
    model, condition = trained.by_steps.model, f"1 mm, {BUDGETS[0]}"
    weights = weights_sha256(model)
    for q in (q for q in blocks if q.condition == WHOLE):
        apart = {"patch_vs_whole": patch_difference(model, q)}
        about = measurement(q, run.arm, condition, run.config_hash, weights)
        units, kept = {"patch_vs_whole": "%"}, sampling(q, numbers(q))
        made += about.rows(apart, units, kept, 0.0, provenance)
    return made


def _curve_rows(
    run: Run, trained: Trained, blocks: Sequence[Question], provenance: rows.Provenance
) -> list[rows.Row]:
    """Every snapshot on the way, on each subject's first block of `CURVE_AT`."""
    asked = [q for q in first_places(blocks, 1) if q.condition == CURVE_AT]
    numbers, made = partial(Question.latent_numbers, size=size_of(run.arm)), []
    for shot in trained.on_the_way:
        scored = scores(asked, partial(answer, shot.model))
        about = run.arm, f"after {shot.steps} steps", scored, numbers, run.config_hash
        made += score_rows(*about, weights_sha256(shot.model), provenance)
    return [replace(row, experiment=CURVE) for row in made]
