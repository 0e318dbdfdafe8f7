"""Tables and sentences on fuzzed readers, from recorded rows; measures nothing."""

from __future__ import annotations

import pandas as pd

from eval.pairs import counted


def by_target(rows: pd.DataFrame) -> pd.DataFrame:
    """One line a reader, one column a metric, and the time of all its executions."""
    wide = rows.pivot_table(index="subject", columns="metric", values="value", sort=False)
    return wide.assign(time_s=rows.groupby("subject", sort=False)["time_s"].first()).reset_index()


def table(rows: pd.DataFrame) -> pd.DataFrame:
    """One line a reader, and one for all of them."""
    every = by_target(rows)
    lines = [{"Reader": line["subject"], **counts(every.loc[[k]])} for k, line in every.iterrows()]
    return pd.DataFrame([*lines, {"Reader": "all", **counts(every)}])


def counts(targets: pd.DataFrame) -> dict[str, object]:
    """Executions, finds, inputs that reached something new, time, and what one took at most."""
    return {
        "executions": int(targets["executions"].sum()),
        "finds": int(targets["finds"].sum()),
        "inputs kept": int(targets["kept"].sum()),
        "processor time (s)": round(float(targets["time_s"].sum())),
        "slowest input (s)": round(float(targets["slowest_s"].max()), 2),
        "most memory (MB)": round(float(targets["peak_mb"].max())),
    }


def tables(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The tables by file stem."""
    return {"fuzz_readers": table(rows)}


def verdict(rows: pd.DataFrame) -> str:
    """How many executions found how much."""
    every = by_target(rows)
    all_of = counts(every)
    engines = ", ".join(sorted(rows["engine"].unique()))
    found = every.loc[every["finds"] > 0, "subject"]
    which = f" ({'; '.join(found)})" if len(found) else ""
    return (
        f"{all_of['executions']:,} executions of {counted(len(every), 'reader')} under {engines} "
        f"ended {all_of['finds']} times in something else than a value or one sentence{which}.\n"
        f"No input took more than {all_of['slowest input (s)']:g} s or "
        f"{all_of['most memory (MB)']} MB."
    )
