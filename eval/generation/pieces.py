"""What the parts of the experiment consist of.

Each part yields units of work: a name, its pieces, and the function that measures them. A piece
is one set or one sample, and gives a row per metric.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

Found = list[dict[str, float]]  # of each piece: metric -> value


@dataclass(frozen=True)
class Piece:
    """One set or sample under one condition, and the units of what is measured of it."""

    subject: str
    arm: str
    condition: str
    units: Mapping[str, str]


Share = tuple[str, list[Piece], Callable[[], Found]]
