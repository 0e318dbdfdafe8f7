"""The ten faults of release 0.6.0: what shows each, and the test that guards against it since."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import nibabel as nib
import numpy as np

from eval import rows
from eval.readers import nifti, nrrd
from eval.readers.case import DATA, bomb, zipped
from eval.reliability import calls, history
from eval.reliability.bench import Bench
from eval.reliability.history import at, bad_image, bad_manifest, damaged, disturbed, read_only
from eval.reliability.judge import ARM, NAME, SAMPLING, UNITS, VERSION, Outcome
from eval.reliability.releases import Release, code_of
from eval.runner import Task
from medil.training.state import EARLIER

HISTORY = "faults of 0.6.0"  # in place of a command
OWN = Path(__file__).parents[2]
FAULTS = {  # in the order of their numbers
    1: "A full disk tears a row",
    2: "Two writers of one folder",
    3: "A final name is open for writing",
    4: "Full or read-only disks",
    5: "Temporary files pile up",
    6: "Headers of images are obeyed",
    7: "Manifests name any place",
    8: "Damage passes",
    9: "Work that a kill or a power cut takes",
    10: "Too few addresses",
}


@dataclass(frozen=True)
class Trial:
    """One injection.

    Args:
        fault: Its number.
        name: What is injected.
        test: File and function below `tests` that guard against it.
        run: Does it on a release.
    """

    fault: int
    name: str
    test: str
    run: Callable[[Release], Outcome]


def resumed(release: Release) -> calls.Arguments:
    """Go on to five steps."""
    return calls.resume(release, 5)


def begun(release: Release) -> calls.Arguments:
    """A new run of two steps."""
    return calls.train(release, 2)


def _from_earlier(path: Path) -> None:
    """Let a run go on from the state before the damaged one."""
    path.unlink()
    if not path.with_name(EARLIER).exists():
        shutil.rmtree(path.parent)


DISK = "cli/test_full_disk.py::"
ROWS = "eval/test_rows.py::"
REPORT = "eval/test_evaluate.py::"
STORE = "training/test_store.py::"
BOMBS = "io/test_bombs.py::"
RUN = "training/test_autoencoder_run.py::"
LOCK = "system/test_lock.py::test_a_folder_that_another_process_fills_is_refused"
PLACES = BOMBS + "test_voxels_outside_the_folder_of_a_header"
SMALL = BOMBS + "test_a_small_file_that_promises_or_hides_much"
FILES = "system/test_files.py::"
WHOLE = "test_whole_files.py::test_every_output_is_written_under_a_temporary_name"
LEFTOVERS = FILES + "test_leftovers_of_killed_writers_are_removed_and_those_of_live_ones_stay"
FLUSHED = FILES + "test_bytes_are_on_the_disk_before_their_name_and_the_name_before_the_end"
BEGUN = REPORT + "test_a_report_that_was_killed_in_its_first_write_is_begun_again"
READ_ONLY = DISK + "test_a_folder_that_may_not_be_written_to"
PATHS = "data/test_schema.py::test_a_path_that_could_leave_its_folder_is_refused"
ADDRESSES = "data/test_fetch.py::test_other_addresses_are_refused_before_anything_happens"
MANY = np.array([3, 2000, 1000, 1000, 1, 1, 1, 1])  # 4 GB of int16
TRIALS = (
    Trial(1, "evaluate", ROWS + "test_a_full_disk_leaves_the_rows_that_were_there",
          disturbed(calls.evaluate, most_bytes=2500)),
    Trial(2, "store twice", LOCK, history.two_stores),
    Trial(2, "evaluate twice", LOCK, history.two_reports),
    Trial(2, "killed evaluate", REPORT + "test_a_killed_verb_takes_the_suite_with_it",
          history.orphan),
    Trial(3, "config.json", WHOLE,
          disturbed(resumed, calls.trained, kind="killed", **at("write", "config.json"))),
    Trial(3, "report.json", BEGUN,
          disturbed(calls.evaluate, kind="killed", **at("open", "report.json"))),
    Trial(3, "root of a store",
          STORE + "test_a_store_that_was_killed_in_its_first_write_is_begun_again",
          disturbed(calls.store, kind="killed", **at("rename", "/zarr.json"))),
    Trial(4, "full disk: encode", DISK + "test_an_image_that_cannot_be_written",
          disturbed(calls.encode, most_bytes=300)),
    Trial(4, "full disk: train", DISK + "test_a_run_that_cannot_save_its_state",
          disturbed(begun, calls.stored, most_bytes=20_000)),
    Trial(4, "full disk: evaluate", DISK + "test_a_report_that_cannot_be_begun",
          disturbed(calls.evaluate, most_bytes=10)),
    Trial(4, "read-only: store", READ_ONLY,
          read_only(calls.store, "store")),
    Trial(4, "read-only: evaluate", READ_ONLY,
          read_only(calls.evaluate, "report")),
    Trial(5, "encode", LEFTOVERS,
          disturbed(calls.encode, kind="killed", **at("rename", "latent.safetensors"))),
    Trial(5, "train", LEFTOVERS,
          disturbed(resumed, calls.trained, kind="killed", **at("rename", "/state.safetensors"))),
    Trial(6, "absolute data file", PLACES,
          bad_image("a.nhdr", nrrd.head(data_file="PLACE/voxels.raw"))),
    Trial(6, "data file in ..", PLACES, bad_image("a.nhdr", nrrd.head(data_file="../voxels.raw"))),
    Trial(6, "/dev/zero", PLACES,
          bad_image("a.nhdr", nrrd.head(data_file="/dev/zero", encoding="gzip"))),
    Trial(6, "lines to skip", SMALL, bad_image("a.nrrd", nrrd.image(line_skip=str(10**15)))),
    Trial(6, "NRRD that hides gigabytes", SMALL,
          bad_image("a.nrrd", nrrd.head(encoding="gzip") + bomb(nrrd.RAW, 1500))),
    Trial(6, "NIfTI that promises gigabytes", SMALL,
          bad_image("a.nii.gz", zipped(nifti.content(nib.Nifti1Image, DATA, dim=MANY)))),
    Trial(7, "..", PATHS,
          bad_manifest("../taken.bin")),
    Trial(7, "absolute", PATHS,
          bad_manifest("PLACE/taken.bin")),
    Trial(7, "file:", ADDRESSES,
          bad_manifest("made/taken.bin")),
    Trial(8, "state of a run",
          RUN + "test_a_damaged_state_names_the_one_before_it_from_which_the_run_goes_on",
          damaged(calls.trained, "run/state.safetensors", 0.6, resumed, resumed, _from_earlier)),
    *(Trial(8, f"store at {share:.0%}", STORE + "test_no_damaged_byte_of_a_volume_passes",
            damaged(calls.stored, "store/*/data/c/**/*", share, begun, resumed))
      for share in (0.3, 0.6, 0.9)),
    Trial(8, "latent", "system/test_tensors.py::test_no_changed_byte_of_a_file_passes",
          damaged(calls.encoded, "latent.safetensors", 0.6, calls.decode, calls.decode)),
    Trial(9, "slow steps", RUN + "test_the_state_is_saved_by_the_clock_where_steps_take_long",
          history.slow_steps),
    Trial(9, "power cut: latent", FLUSHED,
          disturbed(calls.encode, again=calls.decode, power_cut=True)),
    Trial(9, "power cut: run", FLUSHED,
          disturbed(begun, calls.stored, again=resumed, power_cut=True)),
    Trial(10, "ulimit -v 700000",
          "system/test_memory.py::test_too_few_addresses_are_refused_before_a_library_starts",
          history.few_addresses),
)  # fmt: skip


# Tasks


def tasks(root: Path | None, is_quick: bool, provenance: rows.Provenance) -> list[Task]:
    """One task for each fault, on the code of a checkout, or of this one where None."""
    made = []
    for fault, title in FAULTS.items():
        trials = [trial for trial in TRIALS if trial.fault == fault][: 1 if is_quick else None]
        wanted = rows.identities((about(one, root, provenance), UNITS) for one in trials)
        made.append(Task(title, wanted, partial(measure, trials, root, provenance)))
    return made


def about(trial: Trial, root: Path | None, provenance: rows.Provenance) -> rows.Measurement:
    """What the rows of a trial say of it; of another checkout, also its commit."""
    version, commit = code_of(root) if root else ("", "")
    settings = [VERSION, provenance.commit, provenance.dirty, commit]
    arm = f"{ARM} {version}".strip()
    return rows.Measurement(
        NAME, f"{trial.fault}: {trial.name}", arm, f"{HISTORY} | {trial.fault} | {trial.name}",
        rows.digest(settings), rows.digest(["made scans", VERSION]), rows.NO_WEIGHTS,
    )  # fmt: skip


def measure(
    trials: Sequence[Trial], root: Path | None, provenance: rows.Provenance
) -> list[rows.Row]:
    """Rows of the trials; what is wrong goes to stderr."""
    made = []
    for trial in trials:
        began = time.monotonic()
        outcome = trial.run(release(root or OWN))
        told = [outcome.fault, f"left {', '.join(outcome.leftovers)}" * bool(outcome.leftovers)]
        if words := "; ".join(filter(None, told)):
            print(f"{trial.fault}, {trial.name}: {words}", file=sys.stderr)
        took_s = time.monotonic() - began
        made += about(trial, root, provenance).rows(
            outcome.values, UNITS, SAMPLING, took_s, provenance
        )
    return made


@lru_cache
def release(root: Path) -> Release:
    """A release with a bench of its own."""
    return Release(root, Bench.made())
