"""Tables and sentences on injected faults, from recorded rows; measures nothing."""

from __future__ import annotations

import pandas as pd

from eval.pairs import counted
from eval.reliability.judge import ARM
from eval.reliability.ten_faults import FAULTS, HISTORY, TRIALS

METRICS = ("struck", "recovered", "unclear", "lost", "leftovers")


def trials(rows: pd.DataFrame) -> pd.DataFrame:
    """One line a trial, one column a metric, in the order of recording."""
    index = ["verb", "kind", "start", "subject"]
    return rows.pivot_table(index=index, columns="metric", values="value", sort=False).reset_index()


def table(rows: pd.DataFrame, by: str, title: str) -> pd.DataFrame:
    """One line a verb, or a kind of injection, and one for all: counts of trials and of files."""
    every = trials(rows[rows["verb"] != HISTORY])
    groups = [*every.groupby(by, sort=False), ("all", every)]
    return pd.DataFrame([{title: name, **counts(own)} for name, own in groups])


def counts(trials: pd.DataFrame) -> dict[str, int]:
    """Injections, those that changed what the command did, and what became of them."""
    return {"injections": len(trials), **{name: int(trials[name].sum()) for name in METRICS}}


def history(rows: pd.DataFrame) -> pd.DataFrame:
    """One line for each of the ten faults: what its injections do to a release, and its tests."""
    own = rows[rows["verb"] == HISTORY]
    arms = sorted(own["arm"].unique(), reverse=True)
    lines = []
    for number, title in FAULTS.items():
        of_fault = own[own["kind"] == str(number)]
        said = {_release(arm): became(of_fault[of_fault["arm"] == arm]) for arm in arms}
        lines.append({"fault": title, **said, "tests": guards(number)})
    return pd.DataFrame(lines if arms else [])


def _release(arm: str) -> str:
    return "today" if arm == ARM else arm.removeprefix(f"{ARM} ")


def became(rows: pd.DataFrame) -> str:
    """What became of some trials of a release, in words."""
    sums = rows.groupby("metric")["value"].sum()
    counts = {name: int(sums.get(name, 0)) for name in METRICS}
    words = [f"{counts[name]} {name}" for name in ("lost", "unclear") if counts[name]]
    words += [f"{counted(counts['leftovers'], 'file')} left"] * bool(counts["leftovers"])
    words = words or [f"{counts['recovered']} recovered"]
    trials = rows["subject"].nunique()
    words += [f"{trials - counts['struck']} not struck"] * (counts["struck"] < trials)
    return f"{', '.join(words)} of {trials}"


def guards(number: int) -> str:
    """The tests of a fault, as sentences, and where they are."""
    tests = dict.fromkeys(trial.test for trial in TRIALS if trial.fault == number)
    split = [test.split("::test_") for test in tests]
    return "; ".join(f"{name.replace('_', ' ')} (`{file}`)" for file, name in split)


def tables(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The tables by file stem."""
    return {
        "reliability_verbs": table(rows, "verb", "command"),
        "reliability_kinds": table(rows, "kind", "injection"),
        "reliability_history": history(rows),
    }


def verdict(rows: pd.DataFrame) -> str:
    """How many injections were survived, and which were not; then those of earlier faults."""
    lines = []
    for arm, own in rows.groupby(rows["arm"].where(rows["verb"] == HISTORY, ""), sort=True):
        lines += _history_lines(str(arm), own) if arm else _command_lines(trials(own))
    return "\n".join(lines)


def _command_lines(every: pd.DataFrame) -> list[str]:
    of_all, verbs = counts(every), counted(every["verb"].nunique(), "command")
    text = (
        f"Of {counted(len(every), 'injection')} into {verbs}, "
        f"{of_all['struck']} struck; {of_all['lost']} lost something, {of_all['unclear']} ended "
        f"without a sentence, and {counted(of_all['leftovers'], 'file')} stayed behind."
    )
    return [text, *_wrong(every)]


def _history_lines(arm: str, rows: pd.DataFrame) -> list[str]:
    every = trials(rows)
    recovered = int(((every["recovered"] > 0) & (every["leftovers"] == 0)).sum())
    faults = counted(every["kind"].nunique(), "fault")
    name = "this code" if arm == ARM else f"release {arm.removeprefix(ARM).strip()}"
    tried = f"Of {counted(len(every), 'injection')} of {faults} of 0.6.0"
    text = f"{tried}, {name} survives {recovered}."
    return [text, *(_wrong(every) if arm == ARM else [])]


def _wrong(every: pd.DataFrame) -> list[str]:
    wrong = every[(every["lost"] > 0) | (every["unclear"] > 0) | (every["leftovers"] > 0)]
    names = "; ".join(wrong["subject"])
    return [f"Not as it should be: {names}."] * bool(names)
