"""Training on samples: what a training volume is, which rows are promised, what tables say."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from eval.downstream import EXPERIMENT, measure, training
from eval.rows import SCHEMA, Provenance
from eval.segmentation.brains import Brain
from eval.segmentation.measure import EXACT, INTENSITY
from medil.anatomy.classes import NUMBER, LabelMap
from medil.anatomy.network import TissueNet
from medil.errors import InputError
from medil.grid import Grid
from medil.volume import Volume


def labelled():
    """A block of white matter in a layer of cortex, its scan, and bright air."""
    labels = torch.zeros(40, 36, 32, dtype=torch.uint8)
    labels[8:32, 8:28, 8:24] = NUMBER["cortex"]
    labels[12:28, 12:24, 12:20] = NUMBER["white matter"]
    data = torch.where(labels == NUMBER["white matter"], 0.9, 0.6)
    return data, LabelMap(labels, Grid.from_spacing(labels.shape, 1.0))


def test_a_labelled_scan_becomes_a_head_of_its_tissue_alone():
    head = training.as_head(*labelled(), source="sample")
    assert head.data.shape == head.labels.shape == head.inside.shape == (24, 20, 16)
    assert (head.inside == 255).all() and head.data.dtype == torch.float16
    assert float(head.data[0, 0, 0]) == pytest.approx(0.6, abs=1e-3)
    assert head.labels[12, 10, 8] == NUMBER["white matter"]


def test_volumes_are_made_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(training, "source_id", lambda kind: "0123456789")
    made = []

    def sampled(seed):
        made.append(seed)
        return labelled()

    monkeypatch.setattr(training, "_sampled", sampled)
    first, again = (training.volumes(training.SAMPLES, 2) for _ in range(2))
    assert made == [training.SEED, training.SEED + 1]
    assert torch.equal(first[1].data, again[1].data) and len(again) == 2


def test_more_people_than_there_are_is_refused(monkeypatch):
    monkeypatch.setattr(training, "entries", lambda *_: ["one", "two"])
    with pytest.raises(InputError, match="has 2 training brains, not 3"):
        training.volumes(training.REAL, 3)


@pytest.fixture
def made_up(monkeypatch):
    """Two small brains, one painted; segmenters without training; a release that knows the map."""
    data, exact = labelled()
    volume = Volume(torch.where(exact.labels > 0, data, 0.0), exact.grid)
    made = [
        Brain("painted", "a", True, lambda: (volume, exact)),
        Brain("person", "b", False, lambda: (volume, None)),
    ]
    torch.manual_seed(0)
    net = TissueNet(training.MODEL).eval()
    net.weights_id = "abc"
    monkeypatch.setattr(measure, "brains", lambda profile: made)
    monkeypatch.setattr(measure, "network", lambda *_: net)
    monkeypatch.setattr(measure, "source_id", lambda kind: kind)
    monkeypatch.setattr(measure, "load_segmenter_release", lambda: None)
    monkeypatch.setattr(measure, "segment", lambda volume, network: exact)


def asked(**changes):
    return SimpleNamespace(**{"profile": "quick", "release": "tiny"} | changes)


def test_every_brain_gives_the_rows_that_it_promised(made_up):
    for task in measure.tasks(asked(), Provenance.now("quick")):
        found = task.measure()
        assert {row.identity for row in found} == task.wanted
        assert all(0 <= row.value <= 1 for row in found)
        assert {row.arm for row in found} == set(training.TITLES)
    with pytest.raises(InputError, match="base"):
        measure.tasks(asked(release="base"), Provenance.now("quick"))


def rows(gain: float) -> pd.DataFrame:
    """Rows in which training on samples gains so much over painted heads on real brains."""
    found = []
    for seed in (0, 1):
        for k in range(6):
            for arm, value in (("samples", 0.7 + gain), ("painted", 0.7), ("real", 0.9)):
                for against in (EXACT, INTENSITY, measure.RELEASE):
                    shift = 0.01 * k + 0.001 * seed
                    value_here = (0.8 if against == EXACT else value) + shift
                    condition = measure.condition(against, "class", "cortex", seed)
                    found.append(dict.fromkeys(SCHEMA, "x") | {
                        "experiment": "downstream", "arm": arm, "condition": condition,
                        "subject": f"{against} {k}", "metric": "dice", "value": value_here,
                        "profile": "gpu", "recorded_at": pd.Timestamp("2026-01-01", tz="UTC"),
                    })  # fmt: skip
    return pd.DataFrame(found)


@pytest.mark.parametrize(("gain", "says"), [(0.1, "raises"), (-0.1, "lowers")])
def test_sentences_follow_the_numbers(gain, says):
    text = EXPERIMENT.verdict(EXPERIMENT.prepare(rows(gain)))
    first, _, last = text.splitlines()
    assert f"{says} agreement with three classes" in first
    assert f"{gain:+.3f}".replace("-", "−") in first.replace("-", "−")
    assert "does not clearly change Dice with exact maps" in last
    assert "n = 6 heads × 2 seeds" in last


def test_tables_name_each_kind_of_training_volumes():
    tables = EXPERIMENT.tables(EXPERIMENT.prepare(rows(0.1)))
    scores, differences = tables["downstream_scores"], tables["downstream_differences"]
    assert list(scores["Trained on"]) == list(training.TITLES.values())
    assert scores["n"].str.contains("6 real").all() and scores["n"].str.endswith("× 2 seeds").all()
    column = "Real brains, three classes of intensity (Dice)"
    assert differences[column].iloc[0].startswith("+0.100")
    assert np.isfinite([float(text.split()[0]) for text in scores[column]]).all()
