"""Which recorded runs are compared: those of one recipe.

A recipe says how arms were trained (steps, heads, device) and on how much they were scored
(blocks a subject, subjects). Runs of other recipes are kept apart and named, never compared.
"""

from __future__ import annotations

import pandas as pd

from eval import primary
from eval.ablation.blocks import PLACES
from eval.ablation.codecs import BEST_LINEAR, CODED, INTERPOLATION, codec_hash
from eval.ablation.measure import CURVE, NAME, RUN
from eval.arms.catalogue import ARMS, OWN, all_learned, size_of
from medil.errors import InputError

SEEDS = 2  # of each arm, so that a recipe answers a comparison
RECIPE = ["learned", "condition", "subjects"]  # with the shortcut and without it: compared apart


def select(frame: pd.DataFrame) -> pd.DataFrame:
    """Scores of the main recipes, and facts of every run, one row a seed and measurement.

    The main recipe is the one that answers most primary comparisons, of equals the one with most
    (arm, seed) pairs, then the newest; arms with the shortcut and without it have one each, on as
    many blocks and subjects. An arm whose definition changed counts in its newest form alone.
    Codecs count as scored on the main recipe's blocks. Points of curves come with their runs.

    Rows come in the order of recording, and get the columns `learned`, `subjects` and
    `compared`, which is False for runs of other recipes.

    Raises:
        InputError: No run is recorded.
    """
    scores, runs, curve = (frame[frame["experiment"] == name] for name in (NAME, RUN, CURVE))
    if runs.empty:
        raise InputError("no run of the ablation is recorded; start: python -m eval.ablation")
    runs = _newest_form(_with_recipe(runs, scores))
    main = main_recipes(runs)
    keys = pd.MultiIndex.from_frame(runs[RECIPE])
    runs = runs.assign(compared=keys.isin(pd.MultiIndex.from_frame(main[RECIPE])))
    compared = {*runs[runs["compared"]]["config_hash"]}
    of_arms = scores[scores["config_hash"].isin(compared)]
    codecs = scores[scores["config_hash"].isin(_codec_hashes(int(main["places"].iloc[-1])))]
    codecs = codecs[codecs["data_sha256"].isin(set(of_arms["data_sha256"]))]
    points = curve[curve["config_hash"].isin(compared)]
    # In the order of recording: an arm without weights is a codec.
    chosen = pd.concat([of_arms, codecs]).sort_index(kind="stable")
    chosen = pd.concat([chosen, points]).assign(compared=True)
    key = ["experiment", "subject", "arm", "condition", "metric", "seed"]
    return pd.concat([chosen.drop_duplicates(key, keep="last"), runs], ignore_index=True)


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
    """The recipes that `select` compares, with and without the shortcut; the fullest last."""
    pairs = runs.drop_duplicates([*RECIPE, "arm", "seed"], keep="last")
    pairs = pairs.assign(n=pairs.groupby(RECIPE)["seed"].transform("size"))
    answers = {recipe: _answered(part) for recipe, part in pairs.groupby(RECIPE)}
    pairs["answers"] = [answers[recipe] for recipe in zip(*(pairs[c] for c in RECIPE), strict=True)]
    places = pairs["condition"].str.extract(r"(\d+) blocks a subject", expand=False)
    pairs = pairs.assign(places=pd.to_numeric(places).fillna(PLACES)).sort_values(
        ["answers", "n"], kind="stable"
    )
    scored = pairs[["places", "subjects"]]
    shared = pairs[(scored == scored.iloc[-1]).all(axis=1)]  # so that codecs meet all arms
    return shared.drop_duplicates("learned", keep="last")


def _answered(runs: pd.DataFrame) -> int:
    """How many primary comparisons the runs of a recipe answer, with at least `SEEDS` seeds."""
    new = runs[runs["recorded_at"] >= primary.named_on()]
    seeds = new.groupby("arm")["seed"].nunique()
    have = {*seeds[seeds >= SEEDS].index, BEST_LINEAR}
    return sum({c.first, c.second} <= have for c in primary.comparisons(NAME))


def _codec_hashes(places: int) -> set[str]:
    sizes = {OWN, *map(size_of, ARMS)}
    return {codec_hash(name, size, places) for name in (*CODED, INTERPOLATION) for size in sizes}
