"""A strict reader of BIDS data sets: anatomical images, their subjects, age and sex.

A folder with a ``dataset_description.json`` is a data set, raw or derivative. Its images are
``sub-*/[ses-*/]anat/*_SUFFIX.nii[.gz]``; all other folders, ``derivatives`` among them, are data
sets of their own. Names are those of the Brain Imaging Data Structure, version 1.10
(https://bids-specification.readthedocs.io).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from medil.errors import InputError, printable, shown
from medil.io.covariates import Covariates, read_covariates
from medil.io.tables import read_table

MARK = "dataset_description.json"
SUFFIX = "T1w"
ENDINGS = (".nii.gz", ".nii")
ENTITIES = (  # of anatomical images and of what is made of them, in the order of their names
    "sub", "ses", "task", "acq", "ce", "rec", "run", "echo", "flip", "inv", "mt", "part", "space",
    "chunk", "res", "den", "desc",
)  # fmt: skip
MAGNITUDE = "mag"  # the part of a complex image that shows anatomy


class Image(NamedTuple):
    """One image of a data set."""

    path: Path
    name: str  # all entities, such as ``sub-01_ses-02_run-1``; unique in the data set
    subject: str  # such as ``sub-01``, whatever the session
    covariates: Covariates = Covariates()


class DataSet(NamedTuple):
    """The images of a data set, sentences on those left out, and remarks that lose nothing."""

    images: list[Image]
    left_out: list[str]
    notes: list[str]


def root_of(folder: Path) -> Path | None:
    """The data set that a folder is, or of which it is a subject or a session; None elsewhere."""
    folder = folder.absolute()
    above = folder.parent if folder.name.startswith("ses-") else folder
    candidates = (folder, above.parent if above.name.startswith("sub-") else folder)
    return next((place for place in candidates if (place / MARK).is_file()), None)


def read_bids(folder: Path, suffix: str = SUFFIX) -> DataSet:
    """The images of one suffix in a data set, in a subject or in a session, sorted by name.

    ``participants.tsv`` and each subject's ``_sessions.tsv`` give age and sex; the latter wins.
    Values there that cannot be used are left out with a note.

    Args:
        folder: A folder for which `root_of` is not None.
        suffix: The end of the names, such as ``T1w``, ``T2w`` or ``FLAIR``.

    Raises:
        InputError: No such image, which names the suffixes that are there; or a table that cannot
            be used.
    """
    root = root_of(folder)
    if root is None:
        raise InputError(f"{folder} is not a BIDS data set; it has no {MARK}.")
    found = DataSet([], [], [])
    paths = [p for p in _anatomical(root) if p.is_relative_to(folder.absolute())]
    for path in paths:
        if _suffix(path) == suffix:
            _add_image(found, path, "/".join(path.relative_to(root).parts[:-2]))
    if not found.images:
        raise InputError(_nothing(folder, suffix, paths, found.left_out))
    covariates = _covariates(root, found)
    images = [i._replace(covariates=covariates[_session(i.name)]) for i in found.images]
    return found._replace(images=images)


def _anatomical(root: Path) -> list[Path]:
    """Images in the ``anat`` folders of the subjects, and links to none."""
    patterns = ("sub-*/anat/*", "sub-*/ses-*/anat/*")
    found = (path for pattern in patterns for path in root.glob(pattern))
    shown = (p for p in found if not p.name.startswith(".") and not p.is_dir())
    return sorted(p for p in shown if p.name.lower().endswith(ENDINGS))


def _stem(path: Path) -> str:
    return re.sub(r"\.nii(\.gz)?$", "", path.name, flags=re.IGNORECASE)


def _suffix(path: Path) -> str:
    return _stem(path).rpartition("_")[2]


def _add_image(found: DataSet, path: Path, folders: str) -> None:
    name = _stem(path).rpartition("_")[0]
    pairs = [entity.partition("-")[::2] for entity in name.split("_")]
    if fault := _fault(folders, pairs):
        found.left_out.append(f"{path} {fault}")
        return
    found.images.append(Image(path, name, f"sub-{dict(pairs)['sub']}"))


def _fault(folders: str, pairs: list[tuple[str, str]]) -> str:
    """What is wrong with the entities of a name, as the end of a sentence; empty if nothing."""
    keys, labels = [key for key, _ in pairs], dict(pairs)
    if not all(re.fullmatch(r"[0-9A-Za-z+]+", label) for label in labels.values()):
        return "has no BIDS name: it should be made of key-label pairs."
    if unknown := [key for key in keys if key not in ENTITIES]:
        return f"has no BIDS name: {shown(unknown[0])} is no entity of an anatomical image."
    if keys != sorted(set(keys), key=ENTITIES.index):
        return f"has no BIDS name: its entities should stand once, in the order {_order(keys)}."
    if folders != "/".join("-".join(pair) for pair in pairs if pair[0] in ("sub", "ses")):
        return f"names another subject or session than its folder, {folders}."
    if labels.get("part", MAGNITUDE) != MAGNITUDE:
        return f"shows the {labels['part']} part of a complex image, not its magnitude."
    return ""


def _order(keys: Iterable[str]) -> str:
    return ", ".join(sorted(set(keys), key=ENTITIES.index))


def _nothing(folder: Path, suffix: str, paths: list[Path], left_out: list[str]) -> str:
    if left_out:
        return f"{folder} holds no image that can be used: {left_out[0]}"
    counts = Counter(_suffix(path) for path in paths)
    others = ", ".join(f"{n} {printable(name)}" for name, n in sorted(counts.items()))
    wish = f"sub-*/[ses-*/]anat/*_{suffix}.nii[.gz]"
    there = f"; there are {others}: pass `suffix=NAME`" if others else ""
    return f"{folder} is a BIDS data set without an image {wish}{there}."


# Age and sex


def _session(name: str) -> tuple[str, str]:
    """Subject and session of a name, such as ``sub-01`` and ``ses-02``; no session is empty."""
    subject, _, rest = name.partition("_")
    first = rest.partition("_")[0]
    return subject, first if first.startswith("ses-") else ""


def _covariates(root: Path, found: DataSet) -> dict[tuple[str, str], Covariates]:
    """Covariates of each subject and session that has an image; adds notes."""
    people = _people(root / "participants.tsv", "participant_id", found.notes)
    known: dict[tuple[str, str], Covariates] = {}
    visits: dict[str, dict[str, Covariates]] = {}
    for subject, session in dict.fromkeys(_session(image.name) for image in found.images):
        if subject not in visits:
            table = root / subject / f"{subject}_sessions.tsv"
            visits[subject] = _people(table, "session_id", found.notes)
        person = people.get(subject, Covariates())
        visit = visits[subject].get(session, Covariates())
        age = person.age_years if visit.age_years is None else visit.age_years
        known[subject, session] = Covariates(age, visit.sex or person.sex)
    unnamed = sorted({subject for subject, _ in known} - set(people)) if people else []
    if unnamed:
        found.notes.append(
            f"{root / 'participants.tsv'} has no line for {unnamed[0]}"
            f"{f' and {len(unnamed) - 1} more subjects' if len(unnamed) > 1 else ''}."
        )
    return known


def _people(table: Path, column: str, notes: list[str]) -> dict[str, Covariates]:
    """Covariates by the identifiers in a column; none where there is no table."""
    if not table.is_file():
        return {}
    people: dict[str, Covariates] = {}
    remarks: list[str] = []
    for line, cells in read_table(table, column):
        if cells[column] in people:
            raise InputError(f"{table}, line {line} names {shown(cells[column])} again.")
        people[cells[column]], read, faults = read_covariates(cells)
        said = (*read, *(f"{fault}, and is left out" for fault in faults))
        remarks += [f"line {line}: {text}" for text in said]
    if remarks:
        more = f"; {len(remarks) - 1} more such lines" if len(remarks) > 1 else ""
        notes.append(f"{table}, {remarks[0]}{more}.")
    return people
