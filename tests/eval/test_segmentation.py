"""The segmenter's experiment: exact maps, classes of intensity, tables, words and card."""

from __future__ import annotations

import pandas as pd
import pytest
import torch

from eval import rows
from eval.segmentation import EXPERIMENT, measure, report
from eval.segmentation.brains import Brain, stripped
from eval.segmentation.card import card
from medil.anatomy.classes import CLASSES
from medil.anatomy.config import SegmenterConfig
from medil.anatomy.network import TissueNet
from medil.anatomy.painted import PaintedHead
from medil.anatomy.segmenter import load_segmenter_release
from medil.data.releases import RELEASES
from medil.errors import InputError

PROVENANCE = rows.Provenance("c" * 40, False, 0, "cpu", 1, {}, "quick")
SAMPLING = rows.Sampling("1", "1", 64, 64)


@pytest.fixture(scope="module")
def head() -> PaintedHead:
    """Slabs of air, CSF, cortex and white matter, with a rim that falls off."""
    labels = torch.arange(4, dtype=torch.uint8).repeat_interleave(6)[:, None, None]
    labels = labels.expand(24, 10, 10).contiguous()
    inside = torch.linspace(255, 0, 10).round().to(torch.uint8).expand(24, 10, 10)
    means = torch.tensor([0.0, 0.2, 0.6, 0.9])
    return PaintedHead(means[labels.int()].half(), labels, inside, "slabs")


@pytest.fixture(scope="module")
def network() -> TissueNet:
    torch.manual_seed(0)
    return TissueNet(SegmenterConfig((8, 8), (1, 1), 8)).eval()


@pytest.fixture(scope="module")
def slabs(head, network):
    """The experiment on the slabs, once with their map and once without."""
    scan, exact = stripped(head, 3)
    found = [Brain("painted", "a", True, lambda: (scan, exact))]
    found += [Brain("real", "b", False, lambda: (scan, None))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "brains", lambda profile: found)
        patch.setattr(measure, "network_of", lambda release: network)
        yield found


@pytest.fixture(scope="module")
def folder(slabs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("segmentation") / "rows"
    assert EXPERIMENT.main(["--out", str(folder), "--workers", "0"]) == 0
    return folder


@pytest.fixture
def frame(folder) -> pd.DataFrame:
    return EXPERIMENT.recorded(folder)


def test_a_head_is_cut_in_data_and_map_alike(head):
    scan, exact = stripped(head, 3)
    assert torch.equal(scan.data > 0, exact.labels > 0)
    assert 0 < int((exact.labels > 0).sum()) < int((head.labels > 0).sum())


def test_every_class_counts_as_a_tissue():
    assert set(measure.TISSUE_OF) == set(CLASSES[1:])
    assert set(measure.TISSUE_OF.values()) == set(measure.TISSUES)


def test_what_is_recorded_is_what_was_promised_and_only_once(slabs, folder, frame, network, capsys):
    found = set(frame[list(rows.IDENTITY)].itertuples(index=False, name=None))
    arms = measure.arms(network)
    assert found == set().union(*(measure.wanted(brain, arms) for brain in slabs))
    assert len(found) == len(frame) == 2 * 13 + 3 + 2 * 3
    assert EXPERIMENT.main(["--out", str(folder), "--workers", "0"]) == 0
    assert "0 new rows" in capsys.readouterr().out


def test_conditions_are_read_back_as_they_were_asked(frame):
    asked = set(frame[["against", "kind", "part"]].itertuples(index=False, name=None))
    classes = {("exact map", "class", name) for name in CLASSES[1:]}
    tissues = {(a, "tissue", t) for a in ("exact map", "intensity") for t in measure.TISSUES}
    assert asked == classes | tissues


def test_slabs_are_told_apart_by_intensity(frame):
    own = frame[(frame["arm"] == "intensity") & (frame["against"] == "exact map")]
    assert own["value"].min() > 0.99


def test_the_network_alone_says_what_its_shares_say(head, network):
    scan, _ = stripped(head, 3)
    shares = measure.brain_shares(scan, network)
    alone, sharpened = shares.tissue_map(0).labels, shares.tissue_map().labels
    assert torch.equal(alone > 0, scan.data > 0)
    assert torch.equal(sharpened > 0, scan.data > 0)
    picked = shares.shares.argmax(0)[shares.brain] + 1
    assert torch.equal(alone[scan.data > 0].long(), picked)
    assert not torch.equal(alone, sharpened)


# Tables and words, from numbers that are known


def known() -> pd.DataFrame:
    """Two painted heads and a real brain: the second head and white matter gain more."""
    made = []

    def add(subject: str, arm: str, question: str, value: float) -> None:
        weights = "" if arm == measure.INTENSITY else "w"
        about = rows.Measurement(measure.NAME, subject, arm, question, arm, subject, weights)
        made.extend(about.rows({"dice": value}, measure.UNITS, SAMPLING, 1.0, PROVENANCE))

    for number, subject in enumerate(("one", "two")):
        for part, gain in (("cortex", 0.05), ("white matter", 0.1)):
            question = measure.condition(True, "class", part)
            add(subject, measure.NETWORK, question, 0.8)
            add(subject, measure.SEGMENTER, question, 0.8 + gain * (1 + number))
        for part in measure.TISSUES:
            question = measure.condition(True, "tissue", part)
            for arm, value in zip(report.ARMS, (0.9, 0.85, 0.7), strict=True):
                add(subject, arm, question, value)
    for part in measure.TISSUES:
        question = measure.condition(False, "tissue", part)
        add("cross_sectional_patient07", measure.NETWORK, question, 0.75)
        add("cross_sectional_patient07", measure.SEGMENTER, question, 0.85)
    frame = pd.DataFrame.from_records([row.to_record() for row in made])
    return EXPERIMENT.prepare(frame.assign(recorded_at=pd.to_datetime(frame["recorded_at"])))


def test_tables_hold_means_ranges_and_gains():
    tables = report.tables(known())
    cortex, white = tables["segmentation"].to_dict("records")
    assert (cortex["Class"], white["Class"]) == ("cortex", "white matter")
    assert (white["Lowest"], white["Highest"]) == pytest.approx((0.9, 1.0))
    assert white["Network alone"] == pytest.approx(0.8) and white["n"] == 2
    assert white["Gain by intensities"].startswith("+0.150 [")
    tissues = tables["segmentation_tissues"]
    assert list(tissues["Tissue"]) == ["CSF", "grey matter", "white matter"]
    assert tissues["Three classes of intensity"].tolist() == pytest.approx([0.7] * 3)
    (brain,) = tables["segmentation_brains"].to_dict("records")
    assert brain == pytest.approx(
        {"Brain": "patient07", "CSF": 0.85, "grey matter": 0.85, "white matter": 0.85}
    )


def test_the_verdict_says_what_the_numbers_say():
    assert report.verdict(known()).splitlines() == [
        "Dice with the exact maps of n = 2 painted heads [95 % interval over heads]. With so few "
        "heads the interval is little more than their range.",
        "Mean over 2 classes: 0.912 [0.875, 0.950]; the network alone 0.800 [0.800, 0.800]. "
        "Intensities add +0.112 [+0.075, +0.150]: +0.150 in white matter, the most, +0.075 in "
        "cortex, the least.",
        "Three tissues, in brackets what three classes of intensity reach: CSF 0.900 (0.700), grey "
        "matter 0.900 (0.700), white matter 0.900 (0.700).",
        "Real brains (n = 1) have no exact map. Agreement with three classes of intensity, which "
        "is no accuracy and rises with any use of intensities, in brackets that of the network "
        "alone: CSF 0.850 (0.750), grey matter 0.850 (0.750), white matter 0.850 (0.750).",
    ]


def test_brains_of_one_kind_alone_have_tables_and_words_too():
    frame = known()
    real = frame[frame["against"] == "intensity"]
    painted = frame[frame["against"] == "exact map"]
    assert report.verdict(real).startswith("Real brains (n = 1)")
    assert "Real brains" not in report.verdict(painted)
    assert set(EXPERIMENT.contents(real)) >= {"segmentation_brains.csv"}
    assert "segmentation_brains.csv" not in EXPERIMENT.contents(painted)


# The card


def test_the_committed_card_is_what_weights_and_rows_say():
    text = card("tiny", load_segmenter_release("tiny"), EXPERIMENT.recorded())
    assert (RELEASES / "tiny-segmenter.md").read_text("utf-8") == text


def test_weights_without_rows_have_no_card():
    with pytest.raises(InputError, match="no row"):
        card("tiny", load_segmenter_release("tiny"), known())
