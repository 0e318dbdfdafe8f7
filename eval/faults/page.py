"""Sentences of page 08 about its live matrix of faults and metrics."""

from __future__ import annotations

from collections.abc import Mapping

from eval.faults.distortions import FAULTS, Scores, harm
from eval.metrics import METRICS

ALIKE = 1e-3  # a spread of harms below it does not tell the faults apart
PRAISED = -0.02  # harm of a fault that a metric calls better than a copy


def matrix_words(scores: Scores, copy: Mapping[str, float]) -> str:
    """Bullets: which metrics mind which fault most, which tell none apart, which praise one."""
    harms = harm(scores, copy)
    telling = {n: h for n, h in harms.items() if max(h.values()) - min(h.values()) > ALIKE}
    most: dict[str, list[str]] = {}
    for name, of_fault in telling.items():
        most.setdefault(max(of_fault, key=lambda f: abs(of_fault[f])), []).append(name)
    lines = [f"**{FAULTS[fault].title}** moves most: {_titles(n)}" for fault, n in most.items()]
    lines.append(f"The same for every fault: {_titles([n for n in harms if n not in telling])}")
    praised = [
        f"{FAULTS[fault].title} ({METRICS[name].title})"
        for name, of_fault in telling.items()
        if METRICS[name].higher_is_better is not None
        for fault, h in of_fault.items()
        if h < PRAISED
    ]
    lines.append(f"Faults that a metric calls *better than a copy*: {', '.join(praised) or 'none'}")
    return "\n".join(f"- {line}" for line in lines)


def _titles(names: list[str]) -> str:
    return ", ".join(METRICS[name].title for name in names) or "none"
