"""Disturb commands, call them again, and judge what became of their files: one trial after another.

A trial *struck* where the disturbed command did not simply succeed. It is *lost* where a final
name holds something broken, where wrong output passes for right, or where the next call does not
give what an undisturbed one gives. It is *unclear* where nothing is lost, but the command ended in
neither success nor one sentence. Else it has *recovered*. *Leftovers* are files that are still
there after the next call, and would not be after an undisturbed one.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import zlib
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import pandas as pd

from eval import rows
from eval.reliability import judge, ten_faults
from eval.reliability.bench import Bench
from eval.reliability.injections import DAMAGED, KINDS, REMOVED, STOPPED, Draw, Injection
from eval.reliability.judge import ARM, NAME, SAMPLING, UNITS, VERSION, Outcome, Reference
from eval.reliability.verbs import VERBS, Verb, make_inputs
from eval.runner import Task
from medil.errors import InputError

NOTHING, EARLIER = "nothing", "an earlier output"  # what is there when a command begins
PARTS = ("commands", "history")


# Tasks


def tasks(options: argparse.Namespace, provenance: rows.Provenance) -> list[Task]:
    """The tasks of the parts that are asked for; those of this commit are not repeated."""
    is_quick = options.profile == "quick"
    made = [] if "commands" not in options.parts else commands(options.verb, is_quick, provenance)
    if "history" in options.parts:
        made += ten_faults.tasks(options.checkout, is_quick, provenance)
    return made


def commands(only: str | None, is_quick: bool, provenance: rows.Provenance) -> list[Task]:
    """One task for each verb and kind."""
    return [
        task(verb, kind, 1 if is_quick else count, provenance)
        for verb in VERBS
        for kind, (_, count) in KINDS.items()
        if (kind != DAMAGED or verb.reads) and only in (None, verb.name)
    ]


def task(verb: Verb, kind: str, count: int, provenance: rows.Provenance) -> Task:
    """The trials of one kind for one verb."""
    wanted = rows.identities((about(verb, kind, k, provenance), UNITS) for k in range(count))
    return Task(f"{verb.name}, {kind}", wanted, partial(measure, verb, kind, count, provenance))


def about(verb: Verb, kind: str, number: int, provenance: rows.Provenance) -> rows.Measurement:
    """What the rows of a trial say of it."""
    settings = [VERSION, provenance.commit, provenance.dirty]
    condition = f"{verb.name} | {kind} | {start_of(kind, number)}"
    return rows.Measurement(
        NAME, f"{verb.name}: {kind} {number}", ARM, condition,
        rows.digest(settings), rows.digest(["made scans", VERSION]), rows.NO_WEIGHTS,
    )  # fmt: skip


def factors(conditions: pd.Series) -> pd.DataFrame:
    """Verb, kind of injection, and what was there before."""
    split = conditions.str.split(" | ", expand=True, regex=False)
    return split.set_axis(["verb", "kind", "start"], axis="columns")


def start_of(kind: str, number: int) -> str:
    """What is there when a trial begins: nothing, or what an earlier call has left."""
    if kind in (DAMAGED, REMOVED):
        return EARLIER if kind == DAMAGED else NOTHING
    return (NOTHING, EARLIER)[number % 2]


def measure(verb: Verb, kind: str, count: int, provenance: rows.Provenance) -> list[rows.Row]:
    """Rows of the trials of one kind; what is wrong goes to stderr."""
    made = []
    for number in range(count):
        outcome = trial(verb, kind, number, count)
        left = f"left {', '.join(outcome.leftovers)}" if outcome.leftovers else ""
        if words := "; ".join(filter(None, (outcome.fault, left))):
            print(f"{verb.name}, {kind} {number}: {words}", file=sys.stderr)
        seeded = replace(provenance, seed=number)
        made += about(verb, kind, number, provenance).rows(
            outcome.values, UNITS, SAMPLING, outcome.took_s, seeded
        )
    return made


# Trials


def trial(verb: Verb, kind: str, number: int, count: int) -> Outcome:
    """One injection, and the call after it."""
    here, start = bench(), start_of(kind, number)
    known = reference(verb.name, start)
    here.reset(earlier(verb.name) if start == EARLIER else None)
    injection = drawn(verb, kind, number, count, known)
    with injection.around():
        ended = here.run(verb.command(here), injection.arm, 2 if injection.twice else 1)
        broken = judge.broken_files(here.place, known, injection.damaged)
    unlike = differs(verb, known)
    struck = kind == DAMAGED or injection.twice or bool(unlike or any(one.code for one in ended))
    is_done = kind not in (STOPPED, REMOVED) and all(one.code == 0 for one in ended)
    if broken or (is_done and unlike):
        words = f"broken {broken}" if broken else f"succeeds, and gives another {unlike}"
        return Outcome(struck, words, True)
    return _afterwards(verb, known, struck, judge.unclear(ended, kind))


def _afterwards(verb: Verb, known: Reference, struck: bool, fault: str) -> Outcome:
    """Call the command again, and look at what it gives."""
    here = bench()
    here.age()
    (after,) = here.run(verb.command(here))
    if after.code:
        words = f"the next call ends with {after.code}: {judge.last_line(after.said)}"
        return Outcome(struck, words, True)
    if unlike := differs(verb, known):
        return Outcome(struck, f"the next call gives another {unlike}", True)
    left = tuple(sorted(here.names() - known.names))
    return Outcome(struck, fault, False, left, after.facts["cpu_s"])


def drawn(verb: Verb, kind: str, number: int, count: int, known: Reference) -> Injection:
    """The injection of a trial; those of one kind are spread over what can be drawn."""
    here = bench()
    rng = np.random.default_rng([VERSION, zlib.crc32(f"{verb.name} {kind}".encode()), number])
    files = [p for pattern in verb.reads for p in sorted(here.root.glob(pattern)) if p.is_file()]
    share = (number + rng.random()) / count
    return KINDS[kind][0](Draw(share, rng, known.facts, here.place, tuple(files)))


def differs(verb: Verb, known: Reference) -> str:
    """The name of something that is not as an undisturbed call leaves it; empty if nothing is."""
    result = verb.result(bench())
    names = sorted({*result, *known.result})
    return next((n for n in names if result.get(n) != known.result.get(n)), "")


# Once a process


@lru_cache(maxsize=1)
def bench() -> Bench:
    """The bench of this process."""
    made = Bench.made()
    make_inputs(made)
    return made


@lru_cache
def earlier(name: str) -> Path:
    """A folder with what an earlier call of a verb has left."""
    here, verb = bench(), _verb(name)
    here.reset()
    verb.earlier(here)
    return Path(shutil.copytree(here.place, here.starts / name))


@lru_cache
def reference(name: str, start: str) -> Reference:
    """What an undisturbed call does from a start.

    Raises:
        InputError: It gives another result than from nothing.
    """
    here, verb = bench(), _verb(name)
    here.reset(earlier(name) if start == EARLIER else None)
    before = judge.digests(here.place)
    here.undisturbed(verb.command(here))  # imports what the next ones then have
    here.reset(earlier(name) if start == EARLIER else None)
    ended = here.undisturbed(verb.command(here))
    sizes = [path.stat().st_size for path in here.place.rglob("*") if path.is_file()]
    made = Reference(
        verb.result(here), ended.facts | {"largest_bytes": max(sizes, default=0)},
        frozenset({*before.values(), *judge.digests(here.place).values()}), here.names(),
    )  # fmt: skip
    if start == EARLIER and made.result != reference(name, NOTHING).result:
        raise InputError(f"medil {name} gives another result where {EARLIER} is there.")
    return made


def _verb(name: str) -> Verb:
    return next(verb for verb in VERBS if verb.name == name)
