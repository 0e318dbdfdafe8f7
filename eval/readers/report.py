"""Tables and sentences on damaged and odd files, from recorded rows; measures nothing."""

from __future__ import annotations

import pandas as pd

from eval.cited import cited


def by_case(rows: pd.DataFrame) -> pd.DataFrame:
    """One line a case, one column a metric."""
    index = ["subject", "format", "kind", "right"]
    return rows.pivot_table(index=index, columns="metric", values="value").reset_index()


def table(rows: pd.DataFrame) -> pd.DataFrame:
    """One line a format and kind of fault: what became of the cases, and the most that one took."""
    lines = []
    for (format, kind), own in by_case(rows).groupby(["format", "kind"], sort=False):
        lines.append({"Format": format, "Fault": kind, **counts(own)})
    return pd.DataFrame(lines)


def counts(cases: pd.DataFrame) -> dict[str, object]:
    """Numbers of cases, of right answers of both kinds and of wrong ones; the worst peaks."""
    is_right = cases["is_right"] == 1
    return {
        "n": len(cases),
        "refused in one sentence": int((is_right & (cases["is_refused"] == 1)).sum()),
        "read right": int((is_right & (cases["is_refused"] == 0)).sum()),
        "wrong": int((~is_right).sum()),
        "most memory (MB)": round(float(cases["peak_mb"].max())),
        "most time (s)": round(float(cases["took_s"].max()), 2),
    }


def tables(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The tables by file stem."""
    return {"readers_cases": table(rows)}


def verdict(rows: pd.DataFrame) -> str:
    """How many cases are right, and which are not."""
    cases = by_case(rows)
    all_of = counts(cases)
    wrong = sorted(cases.loc[cases["is_right"] != 1, "subject"])
    which = f": {'; '.join(wrong)}" if wrong else ""
    memory, time = f"{all_of['most memory (MB)']} MB", f"{all_of['most time (s)']:g} s"
    for name in ("n", "refused in one sentence", "read right", "wrong"):
        cited(str(all_of[name]), metric=["is_right", "is_refused"])
    return (
        f"Of {all_of['n']} damaged and odd files, {all_of['refused in one sentence']} are refused "
        f"in one sentence, {all_of['read right']} are read right and {all_of['wrong']} are "
        f"neither{which}.\n"
        f"None takes more than {cited(memory, metric='peak_mb')} or {cited(time, metric='took_s')}."
    )
