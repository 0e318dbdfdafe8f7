"""Check sums inside JSON objects: a changed byte of a setting or a number is found when read.

Objects of earlier releases have none, and are read without.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

SUM = "sha256_of_the_rest"  # the field that holds it


def parsed(text: str | bytes) -> Any:
    """A value from JSON; `json.loads` with one kind of error.

    Raises:
        ValueError: The text is no JSON, or nested too deeply to be read.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def summed(values: Mapping[str, Any]) -> dict[str, Any]:
    """JSON values with their check sum as a last field.

    Example:
        >>> without_sum(summed({"steps": 3}))
        {'steps': 3}
    """
    return {**values, SUM: _sum(values)}


def without_sum(values: Mapping[str, Any]) -> dict[str, Any]:
    """What `summed` was given, or values that have no check sum.

    Raises:
        ValueError: They are not what was written.
    """
    rest = {name: value for name, value in values.items() if name != SUM}
    if SUM in values and values[SUM] != _sum(rest):
        raise ValueError("its content is not what was written")
    return rest


def _sum(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
