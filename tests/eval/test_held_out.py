"""Nobody who is scored was trained on: proved file by file, by SHA-256, without the files."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import torch

from eval import subjects
from eval.ablation import scored
from eval.ablation.measure import PROFILES as ABLATION
from eval.extrapolation import blocks
from eval.extrapolation.measure import PROFILES as EXTRAPOLATION
from eval.latent_consistency import heads as of_latents
from eval.patch_vs_whole import measure as patch_vs_whole
from eval.robustness import heads as of_damage
from eval.runner import PROFILES
from eval.segmentation.brains import brains
from medil.config import DataConfig
from medil.data import manifest
from medil.data.manifest import Entry
from medil.grid import Grid
from medil.training import dataset
from medil.training.patches import prepare_scan
from medil.volume import Volume

FEWEST, FEWEST_PEOPLE = 10, 6  # subjects of a ``gpu`` profile, and real people among them


Readers = dict[str, Callable[[], object]]  # a subject's name -> what reads it


def loaded(people: Iterable) -> Readers:
    return {subject.name: subject.load for subject in people}


def of_extrapolation(profile: str) -> Readers:
    plan = EXTRAPOLATION[profile]
    sources = blocks.sources(plan.subjects, plan.phantoms, plan.people)
    return {source.name: source.draw for source in sources}


def of_ablation(profile: str) -> Readers:
    tasks = scored.subject_tasks(Path())[: ABLATION[profile]().subjects]
    return {path.stem: draw for path, draw in tasks}


SUBJECTS: dict[str, Callable[[str], Readers]] = {  # experiment -> its subjects in a profile
    "reconstruction": lambda profile: loaded(subjects.subjects(profile)),
    "latent_consistency": lambda profile: loaded(of_latents.heads(profile)),
    "robustness": lambda profile: loaded(of_damage.heads(profile)),
    "patch_vs_whole": lambda profile: loaded(patch_vs_whole.heads(profile)),
    "segmentation": lambda profile: loaded(brains(profile)),
    "extrapolation": of_extrapolation,
    "ablation": of_ablation,
}
each_experiment = pytest.mark.parametrize("name", SUBJECTS)


class Asked(Exception):
    """A published file was asked for."""


@pytest.fixture
def files_of(monkeypatch) -> Callable[[str, str], dict[str, list[Entry]]]:
    """Name to published files of the subjects of an experiment and profile.

    Every published file counts as available; a subject asks for its file and does not get it.
    """
    asked: list[Entry] = []

    def note(entry: Entry) -> None:
        asked.append(entry)
        raise Asked

    monkeypatch.setattr(manifest, "available", lambda entry: True)
    readers = "eval.subjects", "eval.ablation.scored", "eval.segmentation.brains"
    for module in (*readers, "medil.data.samples"):
        monkeypatch.setattr(f"{module}.fetch", note)

    def of_one(name: str, read: Callable[[], object]) -> list[Entry]:
        asked.clear()
        if not name.startswith("cortex_phantom"):  # is made of nothing
            with pytest.raises(Asked):
                read()
        return list(asked)

    return lambda name, profile: {n: of_one(n, r) for n, r in SUBJECTS[name](profile).items()}


@pytest.fixture
def trained_on(monkeypatch) -> set[str]:
    """SHA-256 of every published file that training asks for: scans and label maps."""
    asked: list[Entry] = []
    scan = prepare_scan(Volume(torch.rand(5, 5, 5), Grid.from_spacing((5, 5, 5), 1.0)), 1.0)
    with monkeypatch.context() as patch:
        patch.setattr(manifest, "available", lambda entry: True)
        patch.setattr(manifest, "fetch", asked.append)
        patch.setattr(dataset, "read_scan", lambda path, weight: scan)
        assert len(dataset.real_scans(DataConfig(real_share=0.5))) == len(asked) > 0
        dataset.training_maps()
    return {entry.sha256 for entry in asked}


@each_experiment
@pytest.mark.parametrize("profile", PROFILES)
def test_no_file_of_a_subject_is_one_that_training_reads(name, profile, files_of, trained_on):
    found = [entry for files in files_of(name, profile).values() for entry in files]
    assert found and not trained_on & {entry.sha256 for entry in found}
    assert {entry.split for entry in found} == {"test"}


def test_training_reads_the_whole_train_split(trained_on):
    known = {*dataset.REAL, dataset.LABELS}
    assert trained_on == {e.sha256 for name in known for e in manifest.entries(name, "train")}


@each_experiment
def test_a_gpu_profile_has_enough_subjects_and_real_people(name, files_of):
    found = files_of(name, "gpu")
    people = {
        (entry.dataset, entry.subject)
        for files in found.values()
        for entry in files
        if entry.dataset in subjects.REAL
    }
    assert len(found) >= FEWEST and len(people) >= FEWEST_PEOPLE
