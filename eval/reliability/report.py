"""Tables and sentences on injected faults, from recorded rows; measures nothing."""

from __future__ import annotations

import pandas as pd

from eval.pairs import counted

METRICS = ("struck", "recovered", "unclear", "lost", "leftovers")


def trials(rows: pd.DataFrame) -> pd.DataFrame:
    """One line a trial, one column a metric, in the order of recording."""
    index = ["verb", "kind", "start", "subject"]
    return rows.pivot_table(index=index, columns="metric", values="value", sort=False).reset_index()


def table(rows: pd.DataFrame, by: str, title: str) -> pd.DataFrame:
    """One line a verb, or a kind of injection, and one for all: counts of trials and of files."""
    every = trials(rows)
    groups = [*every.groupby(by, sort=False), ("all", every)]
    return pd.DataFrame([{title: name, **counts(own)} for name, own in groups])


def counts(trials: pd.DataFrame) -> dict[str, int]:
    """Injections, those that changed what the command did, and what became of them."""
    return {"injections": len(trials), **{name: int(trials[name].sum()) for name in METRICS}}


def tables(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The tables by file stem."""
    return {
        "reliability_verbs": table(rows, "verb", "command"),
        "reliability_kinds": table(rows, "kind", "injection"),
    }


def verdict(rows: pd.DataFrame) -> str:
    """How many injections were survived, and which were not."""
    every = trials(rows)
    of_all = counts(every)
    verbs = counted(every["verb"].nunique(), "command")
    lines = [
        f"Of {counted(len(every), 'injection')} into {verbs}, "
        f"{of_all['struck']} struck; {of_all['lost']} lost something, {of_all['unclear']} ended "
        f"without a sentence, and {counted(of_all['leftovers'], 'file')} stayed behind."
    ]
    wrong = every[(every["lost"] > 0) | (every["unclear"] > 0) | (every["leftovers"] > 0)]
    names = "; ".join(wrong["subject"])
    return "\n".join(lines + [f"Not as it should be: {names}."] * bool(names))
