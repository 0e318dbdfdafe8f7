"""Which of several DICOM series is read, and which of its images."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from medil.errors import InputError, printable
from medil.io.dicom_headers import Header

MOST_SERIES = 12  # that a sentence lists


def choose_series(headers: Sequence[Header], series: str | int | None) -> list[Header]:
    """The files of one series.

    Args:
        headers: Images of all series in a folder, at least one.
        series: Number or UID of the series; None where there is one alone.

    Raises:
        InputError: Several series and none chosen, or a choice that does not exist; lists them.
    """
    by_uid = by_series(headers)
    if series is None and len(by_uid) == 1:
        return list(headers)
    numbers = {uid: files[0].number for uid, files in by_uid.items()}
    wanted = str(series).strip()
    matches = [uid for uid, number in numbers.items() if wanted in (uid, str(number))]
    if series is not None and len(matches) == 1:
        return by_uid[matches[0]]
    listed = sorted(by_uid, key=lambda uid: (numbers[uid] is None, numbers[uid], uid))
    shared = Counter(numbers.values())
    names = [series_label(by_uid[uid], shared) for uid in listed[:MOST_SERIES]]
    if len(listed) > MOST_SERIES:
        names.append(f"and {len(listed) - MOST_SERIES} more")
    problem = "pass `series=NUMBER_OR_UID` where it is taken, or name a folder with one series"
    if series is not None:
        problem = f"`series={printable(wanted)}` names {len(matches) or 'none'} of them"
    count = "there is one series" if len(by_uid) == 1 else f"there are {len(by_uid)} series"
    raise InputError(f"{count}: {', '.join(names)}; {problem}.")


def by_series(headers: Sequence[Header]) -> dict[str, list[Header]]:
    """The files of each series, by its UID."""
    found: dict[str, list[Header]] = {}
    for header in headers:
        found.setdefault(header.uid, []).append(header)
    return found


def series_label(files: Sequence[Header], shared: Counter[int | None]) -> str:
    """Such as ``4 (MR, 256 x 256, 120 images)``; the UID where a number does not tell apart.

    `shared` counts the numbers of all series.
    """
    first, name = files[0], str(files[0].number)
    if first.number is None or shared[first.number] > 1:
        is_valid = re.fullmatch(r"[0-9.]{1,64}", first.uid)
        name = first.uid if is_valid else "one without a valid UID"
    n_images = sum(header.n_frames for header in files)
    facts = [first.modality] if first.modality else []
    facts += ["{} x {}".format(*first.size), f"{n_images} image{'s'[: n_images - 1]}"]
    return f"{name} ({', '.join(facts)})"


def without_localizers(headers: list[Header], notes: list[str]) -> list[Header]:
    """Without the localizers of a series that holds other images too; adds one of `notes`."""
    kept = [header for header in headers if "LOCALIZER" not in header.image_type]
    if not kept or len(kept) == len(headers):
        return headers
    notes.append(f"localizers in the series were left out: {len(headers) - len(kept)}.")
    return kept
