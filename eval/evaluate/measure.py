"""A report on a user's own scans: check the input, measure what is missing, build the pages."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from eval import rows, rows_file, runner
from eval.coders.base import SUFFIX, latent_numbers, loaded
from eval.evaluate.cases import CASES, arms
from eval.evaluate.inputs import Checked, Plan, check, find, subject
from eval.evaluate.report import NAME
from eval.reconstruction import measure as reconstruction
from medil.errors import InputError, printable
from medil.formats import FIELD, REPORT
from medil.grid import Grid
from medil.system.files import atomic_output, make_folder
from medil.system.lock import only_writer

MARK = "report.json"  # says that a folder is a report


def tasks(plan: Plan, path: Path, provenance: rows.Provenance) -> list[runner.Task]:
    """One task a volume, of what its report does not hold yet."""
    people = [subject(found, tuple(CASES)) for found in plan.volumes]
    recorded = rows_file.recorded_identities(path)
    return reconstruction.subject_tasks(people, arms(plan), recorded, provenance, NAME, CASES)


def wanted(plan: Plan) -> frozenset[tuple[str, ...]]:
    """The identities of all rows that a report is about."""
    people = [subject(found, tuple(CASES)) for found in plan.volumes]
    coders = arms(plan)
    return frozenset().union(
        *(reconstruction.identities(reconstruction.pairs(p, coders, NAME)) for p in people)
    )


def check_folder(out: Path) -> None:
    """Refuse a folder that a report must not be written to, before any work.

    Raises:
        InputError: It is a file, lies in no folder, or holds something else.
    """
    if not out.parent.is_dir():
        raise InputError(f"{out.parent} does not exist; make that folder first.")
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; name a folder.")
    others = out.is_dir() and any(not path.name.startswith(".") for path in out.iterdir())
    if others and not (out / MARK).is_file():
        raise InputError(f"{out} holds other things and is no report; name a new or empty folder.")
    with suppress(OSError, UnicodeDecodeError, json.JSONDecodeError):  # a damaged one is replaced
        about = json.loads((out / MARK).read_text("utf-8"))
        if isinstance(about, dict):
            REPORT.reads(about.get(FIELD), out / MARK)


def plan_of(
    inputs: Sequence[Path],
    release: str,
    coders: Sequence[str] = (),
    suffix: str = "T1w",
    split: str = "test",
) -> Plan:
    """The plan of a report, every path absolute; each volume is read once to check it.

    Raises:
        InputError: Which input, weights or coder cannot be used, and why.
    """
    if release.endswith(SUFFIX):
        release = str(Path(release).absolute())
    loaded(release)
    own = []
    for text in coders:
        path, colon, name = text.rpartition(":")
        own.append(f"{Path(path).absolute()}{colon}{name}" if path else text)
    entries, remarks = find(inputs, suffix, split)
    for sentence in remarks:
        print(printable(sentence))
    arms(Plan(release, tuple(own), ()))
    found = [check(entry) for entry in tqdm(entries, desc="reading", unit="scan")]
    return Plan(release, tuple(own), tuple(with_size(f, release) for f in found))


def with_size(found: Checked, release: str) -> Checked:
    """With a warning where a release's latent keeps as many numbers as there are voxels."""
    config = loaded(release).config
    grid = Grid.from_spacing(found.shape, found.spacing_mm)
    a_voxel = latent_numbers(grid, config.latent_spacing_mm, config.latent_channels) / grid.n_voxels
    if a_voxel < 1:
        return found
    warning = f"The latent keeps {a_voxel:.1f} numbers a voxel, so nothing is compressed."
    return replace(found, warnings=(*found.warnings, warning))


def add_options(parser: argparse.ArgumentParser) -> None:
    """The scans and which of them, the user's own coders, ``--force``."""
    parser.add_argument("inputs", type=Path, nargs="+", help="images, folders, tables")
    parser.add_argument("--suffix", default="T1w", help="which images of a BIDS data set")
    parser.add_argument("--split", default="test", help="which lines of tables that name a split")
    parser.add_argument("--coder", action="append", default=[], help="FILE.py:NAME, a model")
    parser.add_argument("--force", action="store_true", help="measure all of it again")


def run(options: argparse.Namespace) -> None:
    """Measure what the report lacks, and build its pages.

    Raises:
        InputError: No folder, or what cannot be used, and why.
    """
    from eval.evaluate.book import build

    if options.out is None:
        raise InputError("say where the report goes: --out FOLDER.")
    out: Path = options.out.absolute()
    check_folder(out)
    plan = plan_of(options.inputs, options.release, options.coder, options.suffix, options.split)
    with only_writer(make_folder(out), "medil evaluate"):
        path = prepare(out, options.force)
        added = measured(plan, path, options.profile, options.workers, options.scheduler)
        print(f"{added} new rows of {len(plan.volumes)} scans")
        index = build(out, plan, wanted(plan), options.profile)
    print((out / "tables" / f"{NAME}_verdict.txt").read_text("utf-8").strip())
    print(f"The report is at {index}")


def measured(
    plan: Plan,
    path: Path,
    profile: str,
    workers: int | None = None,
    scheduler: str | None = None,
) -> int:
    """Measure what a rows file lacks of a plan, as `runner.run`; the number of new rows."""
    todo = tasks(plan, path, rows.Provenance.now(profile))
    return runner.run(todo, path, workers, scheduler)


def prepare(out: Path, force: bool) -> Path:
    """The rows file of a report, whose folder is made and marked."""
    with atomic_output(make_folder(out) / MARK, force=True) as temporary:
        about = {FIELD: str(REPORT), "made_by": "medil evaluate"}
        temporary.write_text(json.dumps(about) + "\n", encoding="utf-8")
    make_folder(out / "rows")  # behind the mark, without which it would be somebody's
    path = out / "rows" / f"{NAME}.jsonl"
    if force:
        path.unlink(missing_ok=True)
    rows_file.mend(path)
    return path
