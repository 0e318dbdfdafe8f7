"""Which recorded runs are compared: those of one recipe.

A recipe says how arms were trained (steps, heads, device) and on how much they were scored
(blocks a subject, subjects). Runs of other recipes are kept apart and named, never compared.
"""

from __future__ import annotations

import pandas as pd

from eval.ablation.blocks import PLACES
from eval.ablation.codecs import CODECS, INTERPOLATION, codec_hash
from eval.ablation.measure import NAME, RUN
from eval.arms.catalogue import ARMS, OWN, all_learned, size_of
from medil.errors import InputError

RECIPE = ["learned", "condition", "subjects"]  # with the shortcut and without it: compared apart


def select(frame: pd.DataFrame) -> pd.DataFrame:
    """Scores of the main recipes, and facts of every run, one row a seed and measurement.

    The main recipe is the one with most (arm, seed) pairs, of equals the newest; arms with the
    shortcut and without it have one each, on as many blocks a subject. An arm whose definition
    changed counts in its newest form alone. Codecs count as scored on the main recipe's blocks.

    Rows come in the order of recording, and get the columns `learned`, `subjects` and
    `compared`, which is False for runs of other recipes.

    Raises:
        InputError: No run is recorded.
    """
    scores, runs = (frame[frame["experiment"] == name] for name in (NAME, RUN))
    if runs.empty:
        raise InputError("no run of the ablation is recorded; start: python -m eval.ablation")
    runs = _newest_form(_with_recipe(runs, scores))
    main = main_recipes(runs)
    keys = pd.MultiIndex.from_frame(runs[RECIPE])
    runs = runs.assign(compared=keys.isin(pd.MultiIndex.from_frame(main[RECIPE])))
    counts = {*runs[runs["compared"]]["config_hash"], *_codec_hashes(int(main["places"].iloc[-1]))}
    scores = scores[scores["config_hash"].isin(counts)].assign(compared=True)
    key = ["subject", "arm", "condition", "metric", "seed"]
    return pd.concat([scores.drop_duplicates(key, keep="last"), runs], ignore_index=True)


def _with_recipe(runs: pd.DataFrame, scores: pd.DataFrame) -> pd.DataFrame:
    """Runs with the number of subjects that each was scored on; the most where it diverged."""
    subjects = runs["config_hash"].map(scores.groupby("config_hash")["subject"].nunique())
    most = subjects.groupby(runs["condition"]).transform("max")
    return runs.assign(
        learned=runs["arm"].map(all_learned), subjects=subjects.fillna(most).fillna(0).astype(int)
    )


def _newest_form(runs: pd.DataFrame) -> pd.DataFrame:
    """Within a recipe, each arm in its newest definition, and each fact of a run once."""
    newest = runs.groupby([*RECIPE, "arm"])["config_hash"].transform("last")
    runs = runs[runs["config_hash"] == newest]
    return runs.drop_duplicates([*RECIPE, "arm", "seed", "metric"], keep="last")


def main_recipes(runs: pd.DataFrame) -> pd.DataFrame:
    """The recipe with most (arm, seed) pairs, with and without the shortcut; fullest last."""
    pairs = runs.drop_duplicates([*RECIPE, "arm", "seed"], keep="last")
    pairs = pairs.assign(n=pairs.groupby(RECIPE)["seed"].transform("size"))
    places = pairs["condition"].str.extract(r"(\d+) blocks a subject", expand=False)
    pairs = pairs.assign(places=pd.to_numeric(places).fillna(PLACES)).sort_values(
        "n", kind="stable"
    )
    shared = pairs[pairs["places"] == pairs["places"].iloc[-1]]  # so that codecs meet all arms
    return shared.drop_duplicates("learned", keep="last")


def _codec_hashes(places: int) -> set[str]:
    sizes = {OWN, *map(size_of, ARMS)}
    return {codec_hash(name, size, places) for name in (*CODECS, INTERPOLATION) for size in sizes}
