"""Age and sex of a person, as tables of scans give them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from medil.errors import shown

MISSING = ("", "n/a", "na", "nan", "none", "unknown")
SEXES = {"f": "F", "female": "F", "m": "M", "male": "M", "o": "O", "other": "O"}
MOST_YEARS = 130.0


class Covariates(NamedTuple):
    """What is known of a person: `age_years`, and `sex` as F, M, O or an empty text."""

    age_years: float | None = None
    sex: str = ""

    def facts(self) -> dict[str, float | str]:
        """What is known, by name."""
        return {key: v for key, v in self._asdict().items() if v not in (None, "")}


def read_covariates(cells: Mapping[str, str]) -> tuple[Covariates, list[str], list[str]]:
    """The covariates in the columns ``age`` (years) and ``sex`` of a line of a table.

    A missing value is n/a or empty. An open age such as ``89+`` is read as its lower bound.

    Returns:
        What is known, remarks on what was read, and faults of what was not.
    """
    remarks: list[str] = []
    faults: list[str] = []
    age, sex = _age(cells.get("age", ""), remarks, faults), cells.get("sex", "").lower()
    if sex not in MISSING and sex not in SEXES:
        faults.append(f"sex {shown(sex)} is not F, M, O or n/a")
    return Covariates(age, SEXES.get(sex, "")), remarks, faults


def _age(text: str, remarks: list[str], faults: list[str]) -> float | None:
    if text.lower() in MISSING:
        return None
    if not re.fullmatch(r"\d{1,3}([.,]\d+)?\+?", text, re.ASCII):
        faults.append(f"age {shown(text)} is no number of years")
        return None
    years = float(text.rstrip("+").replace(",", "."))
    if years > MOST_YEARS:
        faults.append(f"age {shown(text)} is above {MOST_YEARS:g} years")
        return None
    if text.endswith("+"):
        remarks.append(f"age {shown(text)} is read as {years:g}, its lower bound")
    return years
