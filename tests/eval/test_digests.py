"""One digest names weights: the same in rows, cards, the manifest and on pages."""

import tomllib
from dataclasses import replace

import pandas as pd
import pytest

from eval.card import about_weights
from eval.coders.base import ReleaseCoder
from eval.tables import provenance
from medil.anatomy.segmenter import load_segmenter
from medil.data.releases import RELEASES
from medil.diffusion.appearance_training import load_appearance
from medil.model.weights import load_model, load_release, short_digest, weights_sha256
from tests.recorded_rows import recorded

FILES = tomllib.loads((RELEASES / "manifest.toml").read_text("utf-8"))["file"]
MANIFEST = [row for row in FILES if row["path"].endswith(".safetensors")]


def loaded(path: str):
    if "-segmenter" in path:
        return load_segmenter(RELEASES / path)
    if path.endswith("-appearance.safetensors"):
        return load_appearance(RELEASES / path)
    if "-ldm" not in path:
        return load_model(RELEASES / path)
    pytest.importorskip("einops", reason="needs the extra `sample`")
    from medil.diffusion.training import load_flow

    return load_flow(RELEASES / path)


@pytest.mark.parametrize("row", MANIFEST, ids=lambda row: row["path"])
def test_manifest_and_card_name_weights_by_the_digest_of_the_file(row):
    shown = short_digest(weights_sha256(loaded(row["path"])))
    assert row["weights"] == shown, f'{row["path"]}: weights = "{shown}"'
    card = RELEASES / row["path"].replace("safetensors", "md")
    assert f"| weights | `{shown}`" in card.read_text("utf-8")


def test_rows_cards_and_pages_show_one_digest_for_one_release():
    model, coder = load_release("tiny"), ReleaseCoder("tiny")
    shown = short_digest(coder.weights_sha256)
    assert about_weights(model, "tiny", 1)["weights"] == shown
    rows = [replace(r, weights_sha256=coder.weights_sha256) for r in recorded()]
    frame = pd.DataFrame.from_records([r.to_record() for r in rows])
    frame["recorded_at"] = pd.to_datetime(frame["recorded_at"], utc=True)
    assert f"weights {shown})" in provenance(frame)
