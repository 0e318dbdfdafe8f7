"""Formats carry versions: a newer one is refused in one sentence, earlier ones are read."""

from __future__ import annotations

import json

import pytest
import safetensors.torch
import torch
from torch import nn

from eval import rows, rows_file
from eval.evaluate.measure import check_folder
from eval.fuzz.targets import without_digest
from eval.readers.measure import sentence_fault
from medil import formats
from medil.config import PRESETS, RunConfig
from medil.data.manifest import _read_lock
from medil.data.schema import read_manifest
from medil.formats import FORMATS, Format, NewerError
from medil.grid import Grid
from medil.latent import Latent
from medil.model.autoencoder import MedIL
from medil.model.weights import load_model, load_release, save_weights
from medil.preprocess.pipeline import _claim
from medil.system.tensors import read_tensors
from medil.training.state import load_state, read_facts, save_state
from medil.training.store import store_facts, write_attributes
from medil.training.update import new_optimiser
from medil.volume import Intensity


def newer(form: Format) -> str:
    return f"{form.name}-{form.version + 1}"


def refused(read, *arguments) -> None:
    with pytest.raises(NewerError, match="written by a newer medil") as caught:
        read(*arguments)
    assert not sentence_fault(str(caught.value)) and "install the newest" in str(caught.value)


def said(path, form: str | None, drop=()) -> None:
    """Let a file of tensors say another format, as releases without a digest wrote it."""
    tensors, meta = read_tensors(path)
    meta |= {"format": form} if form else {}
    safetensors.torch.save_file(tensors, path, {k: v for k, v in meta.items() if k not in drop})


@pytest.fixture
def latent() -> Latent:
    grid = Grid.from_spacing((2, 2, 2), 4.0)
    ones = torch.ones(1, 2, 2, 2)
    return Latent(ones, 0 * ones, grid, grid, Intensity(0.0, 1.0))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    return save_weights(MedIL(PRESETS["test"].model), PRESETS["test"], path, {})


@pytest.mark.parametrize("form", FORMATS, ids=str)
def test_a_format_knows_its_versions_and_refuses_newer_ones(form):
    assert form.reads(str(form), "a.file")
    assert form.reads(None, "a.file") == (form.oldest == 0)
    assert not any(form.reads(text, "a.file") for text in (f"{form.name}-0", form.name, "x-1", 7))
    refused(form.reads, newer(form), "a.file")


def test_the_table_has_every_format_once():
    lines = formats.table().splitlines()[2:]
    assert len(lines) == len(FORMATS) == len({form.name for form in FORMATS})
    assert all(f"`{form}`" in line for form, line in zip(FORMATS, lines, strict=True))


def test_latents(latent, tmp_path):
    path = latent.save(tmp_path / "latent.safetensors")
    path.write_bytes(without_digest(path))  # as 0.6.0 wrote it
    assert torch.equal(Latent.load(path).mean, latent.mean)
    said(path, newer(formats.LATENT))
    refused(Latent.load, path)


def test_weights(weights):
    meta = read_tensors(weights)[1]
    weights.write_bytes(without_digest(weights))
    assert load_model(weights).facts["config_hash"] == PRESETS["test"].digest()
    said(weights, newer(formats.WEIGHTS))
    refused(load_model, weights)
    said(weights, meta["format"])


def test_released_weights_of_0_6_0_load():
    assert load_release("tiny").weights_id


def test_states_of_training(tmp_path):
    model, path = nn.Linear(1, 1), tmp_path / "state.safetensors"
    optimiser = new_optimiser(model, PRESETS["test"].train)
    save_state(path, model, model, optimiser, {"step": 3})
    tensors, meta = read_tensors(path)
    older = {"format": meta["format"], "progress": json.dumps({"step": 3, "share": 0.5})}
    safetensors.torch.save_file(tensors, path, older)
    assert load_state(path, model, model, optimiser) == {"step": 3, "progress": 0.5}
    said(path, newer(formats.STATE))
    refused(read_facts, path)
    refused(load_state, path, model, model, optimiser)


def test_configurations_of_runs():
    config = PRESETS["tiny"]
    assert json.loads(config.to_file())["format"] == str(formats.CONFIG)
    assert RunConfig.from_json(config.to_file()) == RunConfig.from_json(config.to_json()) == config
    refused(RunConfig.from_json, json.dumps({"format": newer(formats.CONFIG), "preset": "x"}))


def test_stores(tmp_path):
    write_attributes(tmp_path, {"format": str(formats.STORE), "window": [0.0, 1.0]})
    whole = json.loads((tmp_path / "zarr.json").read_text("utf-8"))
    whole["attributes"].popitem()  # 0.6.0 wrote no check sum
    (tmp_path / "zarr.json").write_text(json.dumps(whole))
    assert store_facts(tmp_path)["window"] == [0.0, 1.0]
    write_attributes(tmp_path, {"format": newer(formats.STORE), "more": 1})
    refused(store_facts, tmp_path)


@pytest.mark.parametrize("said", [None, str(formats.PREPARED), newer(formats.PREPARED)])
def test_folders_of_prepared_scans(tmp_path, said):
    _claim(tmp_path)
    path = tmp_path / "dataset_description.json"
    about = json.loads(path.read_text("utf-8"))
    assert about.pop("format") == str(formats.PREPARED)
    path.write_text(json.dumps(about | ({"format": said} if said else {})), "utf-8")
    if said == newer(formats.PREPARED):
        refused(_claim, tmp_path)
    else:
        _claim(tmp_path)
    assert path.is_file()


def test_manifests(tmp_path):
    lines = [f'{k} = "x"' for k in ("title", "version", "licence", "terms", "citation", "modality")]
    text = "\n".join(['name = "x"', *lines, 'access = "open"', 'page = "https://a.b"', 'how = "x"'])
    path = tmp_path / "x.toml"
    for form in ("", f'format = "{formats.MANIFEST}"\n'):
        path.write_text(form + text, "utf-8")
        assert read_manifest(path).name == "x"
    path.write_text(f'format = "{newer(formats.MANIFEST)}"\nunknown = 1\n{text}', "utf-8")
    refused(read_manifest, path)


def test_hashes_of_first_fetches(tmp_path, monkeypatch):
    monkeypatch.setattr("medil.data.manifest.manifest_folder", lambda: tmp_path)
    path = tmp_path / "x.lock.json"
    for form in ({}, {"format": str(formats.HASHES)}):
        path.write_text(json.dumps({"x/a": "0" * 64} | form))
        assert _read_lock("x") == {"x/a": "0" * 64}
    path.write_text(json.dumps({"format": newer(formats.HASHES)}))
    refused(_read_lock, "x")


def test_rows(tmp_path):
    about = rows.Measurement("fuzz", "a", "b", "c", "d", "e", "")
    made = about.rows({"x": 1.0}, {"x": "s"}, rows.Sampling("1", "1", 1, 2), 0.5,
                      rows.Provenance.now("quick"))  # fmt: skip
    path = tmp_path / "r.jsonl"
    rows_file.append_rows(path, made)
    record = json.loads(path.read_text("utf-8"))
    assert record.pop("format") == str(formats.ROW) and record.pop(rows_file.CRC)
    path.write_text(json.dumps(record) + "\n", "utf-8")  # as 0.6.0 wrote it
    assert len(rows_file.read_rows(path)) == 1
    with path.open("a") as file:
        file.write(json.dumps({"format": newer(formats.ROW), "more": 1}) + "\n")
    refused(rows_file.read_rows, path)


def test_reports(tmp_path):
    path = tmp_path / "report.json"
    for text in ('{"made_by": "medil evaluate"}', json.dumps({"format": str(formats.REPORT)})):
        path.write_text(text)
        check_folder(tmp_path)
    path.write_text(json.dumps({"format": newer(formats.REPORT)}))
    refused(check_folder, tmp_path)
    assert path.is_file()
