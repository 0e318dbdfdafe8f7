"""Primary comparisons: few, dated, about arms that exist, and never corrected too little."""

from __future__ import annotations

import numpy as np
import pytest

from eval import primary
from eval.ablation.blocks import CONDITIONS, NATIVE, SCORED_MM
from eval.ablation.codecs import BEST_LINEAR
from eval.ablation.measure import PROFILES, run_config
from eval.ablation.scored import AVERAGED, OF_BRAINS, subject_tasks
from eval.experiments import EXPERIMENTS
from eval.stats import compare, holm
from medil.data import manifest


def test_the_list_is_short_and_every_line_says_why():
    named = primary.comparisons()
    assert 4 <= len(named) <= 6 and len({c.key for c in named}) == len(named)
    assert all(len(c.why) > 30 for c in named) and primary.named_on().year >= 2026
    assert {c.experiment for c in named} <= {experiment.name for experiment in EXPERIMENTS}
    places = {c.spacing for c in primary.comparisons("ablation")}
    assert {"1 mm", NATIVE} <= places <= set(CONDITIONS)
    for c in primary.comparisons("ablation"):
        assert all(run_config(arm) for arm in (c.first, c.second) if arm != BEST_LINEAR)


def test_what_is_not_recorded_counts_as_no_difference():
    first, second, *rest = primary.comparisons()
    found = primary.corrected({first: 0.001, second: 0.004})
    assert set(found) == {first, second}
    assert found[first] == pytest.approx(0.001 * (len(rest) + 2))
    assert list(found.values()) == pytest.approx(holm([0.001, 0.004] + [1.0] * len(rest))[:2])


def conditions(name: str) -> set[str]:
    """Voxel sizes at which a subject is scored, by its name."""
    if name.startswith("made_"):
        return set(SCORED_MM)
    return set(OF_BRAINS) if name.startswith("sub-") else set(AVERAGED)


def test_there_are_enough_subjects_for_holm_to_reject(monkeypatch, tmp_path):
    monkeypatch.setattr(manifest, "available", lambda entry: True)
    names = [path.name for path, _ in subject_tasks(tmp_path)][: PROFILES["gpu"]().subjects]
    assert sum(not name.startswith("made_") for name in names) == 7
    for comparison in primary.comparisons("ablation"):
        n = sum(comparison.spacing in conditions(name) for name in names)
        assert primary.can_reject(n)


def test_few_subjects_cannot_reject_and_the_bound_is_that_of_wilcoxon():
    bound = next(n for n in range(1, 20) if primary.can_reject(n))
    for n, rejects in ((bound - 1, False), (bound, True)):
        p = compare(np.arange(1.0, n + 1)[:, None]).p  # every subject gains
        [named, *_] = primary.comparisons()
        assert (primary.corrected({named: p})[named] < 0.05) == rejects
