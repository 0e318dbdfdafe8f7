"""`medil store`, and training from what it made."""

import json
import threading

import numpy as np
import pytest
import torch

from medil.config import DataConfig
from medil.errors import InputError
from medil.training.autoencoder import AutoencoderLearner
from medil.training.build_store import build_store
from medil.training.dataset import real_scans, training_scans
from medil.training.prefetch import Prefetcher
from medil.training.run import STATE
from medil.training.state import read_facts
from medil.training.store import Store, open_store
from tests.images import refused, write_nifti
from tests.store_images import write_images


@pytest.fixture
def images(tmp_path):
    return write_images(tmp_path / "images")


@pytest.fixture
def made(images, tmp_path):
    build_store(images, tmp_path / "store")
    return Store(tmp_path / "store")


# The command line


def test_the_verb_takes_files_folders_patterns_and_tables(run_medil, images, tmp_path):
    table = tmp_path / "list.csv"
    table.write_text("path,subject\nimages/even.nii.gz,A\nimages/slices.nii.gz,B\n")
    code, out, err = run_medil("store", table, "-o", tmp_path / "s")
    assert code == 0 and "holds 2 volumes (2 new)" in out and not err
    assert f"medil train --store {tmp_path / 's'}" in out
    _, out, _ = run_medil("store", images[0].parent / "t*.nii.gz", "-o", tmp_path / "s")
    assert "holds 3 volumes (1 new)" in out
    _, out, _ = run_medil("store", images[0].parent, images[0], "-o", tmp_path / "s")
    assert "holds 3 volumes (0 new)" in out
    facts = Store(tmp_path / "s").facts.values()
    assert {f["name"]: f["subject"] for f in facts} == {"A": "A", "B": "B", "turned": ""}


def test_the_verb_names_bad_files_and_ends_with_2(run_medil, images, tmp_path):
    flat = write_nifti(tmp_path / "flat.nii.gz", np.ones((5, 6, 7), np.int16), np.eye(4))
    refused(run_medil("store", images[0], flat, "-o", tmp_path / "s"), "1 of 2 images")
    refused(run_medil("store", flat, "-o", tmp_path / "s"), str(flat))
    assert len(Store(tmp_path / "s").facts) == 1
    code, _, err = run_medil("store", flat, tmp_path / "list.csv", "-o", tmp_path / "s")
    assert code == 2 and "list.csv does not exist" in err
    (tmp_path / "list.csv").write_text("file\na.nii\n")
    refused(run_medil("store", tmp_path / "list.csv", "-o", tmp_path / "s"), "'path'")
    refused(run_medil("store", flat, "-o", tmp_path / "s", "--window", 3, 3), "low < high")


# Drawing ahead


def test_what_is_drawn_ahead_is_what_would_be_drawn(made):
    from tests.run_training import config_of

    config = config_of(steps=10, batch=2, global_share=0.35)
    direct = AutoencoderLearner(config, made.scans())
    with Prefetcher(lambda n, stage: direct.draw(5, n, stage), ahead=3, threads=2) as ahead:
        for number in range(10):
            stage = 1 if number < 4 else 2
            (one, noise), (other, noise_too) = (
                ahead.take(number, stage), direct.draw(5, number, stage),
            )  # fmt: skip
            assert torch.equal(one.x, other.x) and torch.equal(one.target, other.target)
            assert one.latent_grid == other.latent_grid and noise == noise_too
    assert ahead.waited_s > 0


# Training


@pytest.fixture
def train(run_medil, tmp_path):
    """`medil train` of the test preset on the store alone, two steps."""

    def run(*arguments, out="run"):
        return run_medil("train", "-o", tmp_path / out, *arguments)

    return run


START = ("--preset", "test", "--steps", 2, "--real-share", 1)


def test_training_from_a_store_and_its_resume(train, made, tmp_path):
    folder = made.folder
    assert train(*START, "--store", folder)[0] == 0
    run = tmp_path / "run"
    facts = read_facts(run / STATE)
    assert facts["step"] == 2 and facts["store"] == made.identity
    row = json.loads((run / "log.jsonl").read_text().splitlines()[-1])
    assert row["waited_s"] > 0 and np.isfinite(row["loss"])
    assert not (run / "cohort").exists()  # a share of 1 draws no heads
    assert not [t for t in threading.enumerate() if t.name.startswith("prefetch")]
    assert train("--resume", "--steps", 3)[0] == 0  # the run knows its store
    assert read_facts(run / STATE)["step"] == 3
    elsewhere = folder.rename(tmp_path / "moved")
    refused(train("--resume", "--steps", 4), "not a patch store")
    assert train("--resume", "--steps", 4, "--store", elsewhere)[0] == 0
    (elsewhere / next(iter(made.facts))).rename(tmp_path / "away")
    refused(train("--resume", "--steps", 5, "--store", elsewhere), "has changed since the run")
    assert read_facts(run / STATE)["step"] == 4


def test_a_stopped_run_from_a_store_ends_as_one_that_never_stopped(train, made, tmp_path):
    from safetensors.torch import load_file

    assert train(*START, "--store", made.folder, out="straight")[0] == 0
    assert train(*START, "--store", made.folder, "--time-budget", "0.001s", out="parts")[0] == 0
    assert read_facts(tmp_path / "parts" / STATE)["step"] == 1
    assert train("--resume", out="parts")[0] == 0
    one, other = (load_file(tmp_path / name / STATE) for name in ("straight", "parts"))
    assert one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def test_contradictions_about_the_store_are_refused(train, made, tmp_path):
    share_0 = "--preset", "test", "--steps", 2, "--real-share", 0
    refused(train(*share_0, "--store", made.folder), "real_share is 0")
    refused(train(*START, "--store", tmp_path / "images"), "not a patch store")
    assert train(*START, "--store", made.folder)[0] == 0
    refused(train("--resume", "--real-share", 0.5), "has data.real_share 1")
    facts = read_facts(tmp_path / "run" / STATE)
    with pytest.raises(InputError, match="draws from no store"):
        open_store(tmp_path / "run", made.folder, None)
    (tmp_path / "run" / "store.txt").unlink()
    refused(train("--resume"), "say where it is with --store")
    assert facts["store"] == made.identity


def test_without_scans_a_share_of_one_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("medil.data.manifest.local_entries", lambda name, split: [])
    with pytest.raises(InputError, match="name a store"):
        training_scans(DataConfig(subjects=1, real_share=1.0), tmp_path, 0)
    with pytest.raises(InputError, match="from 0 to 1"):
        DataConfig(real_share=1.01)


def test_a_store_shares_the_weight_of_real_scans(made, tmp_path):
    scans = real_scans(DataConfig(real_share=0.25), made)
    total = sum(scan.weight for scan in scans)
    assert len(scans) == 3 and total / (1 + total) == pytest.approx(0.25)
    alone = training_scans(DataConfig(real_share=1.0), tmp_path / "cohort", 0, store=made)
    assert [s.name for s in alone] == ["even", "slices", "turned"]
    assert sum(s.weight for s in alone) == pytest.approx(1)
