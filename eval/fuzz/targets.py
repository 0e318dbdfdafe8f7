"""What is fuzzed: readers of bytes, and good files from which mutations begin.

A reader is called as people call it, on a file in a folder. Where a check sum would refuse every
mutation at once, seeds are files without one, as releases up to 0.6.0 wrote them.
"""

from __future__ import annotations

import io
import json
import lzma
import shutil
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from torch import nn

from eval import rows, rows_file
from eval.readers import dicom, mgh, nifti, nrrd
from eval.readers.case import Case
from eval.reliability.bench import scan
from medil.anatomy.packed import read_packed
from medil.checksums import SUM
from medil.config import PRESETS, RunConfig, without_retired
from medil.data.schema import read_manifest
from medil.dials import changed, flat, read_file, read_settings
from medil.errors import InputError
from medil.formats import ANATOMIES, WEIGHTS
from medil.grid import Grid
from medil.io.bids import MARK, read_bids
from medil.io.covariates import read_covariates
from medil.io.tables import read_table
from medil.latent import Latent
from medil.model.weights import load_model
from medil.system.tensors import DIGEST, read_tensors
from medil.training.state import load_state, save_state
from medil.training.store import META, Store, store_facts, write_attributes
from medil.training.update import new_optimiser
from medil.volume import Intensity, load

MOST_BYTES = 6144  # of an input
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Target:
    """A reader.

    Args:
        name: For people.
        read: Given an input and a folder of its own that persists, reads it there.
        seeds: Good inputs, and some that are nearly good.
        runs: Executions in the profile that is published.
    """

    name: str
    read: Callable[[bytes, Path], object]
    seeds: Callable[[Path], list[bytes]]
    runs: int


def written(name: str, content: bytes, folder: Path) -> Path:
    """The file of this name with this content."""
    path = folder / name
    path.write_bytes(content)
    return path


# Images


def _image(suffix: str, content: bytes, folder: Path) -> None:
    path = written(f"scan{suffix}", content, folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            volume = load(path)
        except InputError as error:
            if "`volume_index=K` to pick one" not in str(error):
                raise
            volume = load(path, 0)
    assert np.isfinite(volume.grid.corners_mm).all() and min(volume.grid.spacing_mm) > 0
    assert all(note.endswith(".") and note.isprintable() for note in volume.source.notes)  # type: ignore[union-attr]


def _cases(cases: Callable[[], Iterator[Case]], folder: Path) -> list[bytes]:
    contents = [next(iter(case.files.values())) for case in cases() if len(case.files) == 1]
    return [content for content in contents if len(content) <= MOST_BYTES]


# What MedIL writes


def without_digest(path: Path) -> bytes:
    """A file of tensors as releases up to 0.6.0 wrote it."""
    tensors, meta = read_tensors(path)
    return safetensors.torch.save(tensors, {k: v for k, v in meta.items() if k != DIGEST})


def _both(path: Path) -> list[bytes]:
    return [path.read_bytes(), without_digest(path)]


def _latent(content: bytes, folder: Path) -> Latent:
    return Latent.load(written("latent.safetensors", content, folder))


def _latents(folder: Path) -> list[bytes]:
    grid = Grid.from_spacing((2, 2, 2), 4.0)
    seen = scan(0)
    missing = torch.zeros(seen.grid.shape, dtype=torch.bool)
    latent = partial(Latent, torch.ones(1, 2, 2, 2), torch.zeros(1, 2, 2, 2), grid)
    made = [
        latent(grid, Intensity(0.0, 1.0)),
        latent(seen.grid, Intensity(0.0, 1.0), _stored(folder), "ab", missing[:4, :4, :4]),
    ]
    return [text for one in made for text in _both(one.save(folder / "l.safetensors", force=True))]


def _stored(folder: Path):
    path = written("scan.nii", nifti.content(nifti.KINDS["NIfTI-1"]), folder)
    return load(path).source


FACTS = "facts of a latent"


def _latent_facts(content: bytes, folder: Path) -> Latent:
    tensors = {"mean": torch.ones(1, 2, 2, 2), "log_var": torch.zeros(1, 2, 2, 2)}
    meta = {"format": "medil-latent-1", "facts": content.decode("utf-8", "replace")}
    return _latent(safetensors.torch.save(tensors, meta), folder)


def _facts_of_latents(folder: Path) -> list[bytes]:
    metas = []
    for content in _latents(folder):
        metas.append(read_tensors(written("l.safetensors", content, folder))[1])
    return [meta["facts"].encode() for meta in metas]


def _state(content: bytes, folder: Path) -> None:
    path = written("state.safetensors", content, folder)
    model, ema = nn.Linear(1, 1), nn.Linear(1, 1)
    load_state(path, model, ema, new_optimiser(model, PRESETS["test"].train))


def _states(folder: Path) -> list[bytes]:
    model, path = nn.Linear(1, 1), folder / "s.safetensors"
    optimiser = new_optimiser(model, PRESETS["test"].train)
    model(torch.ones(1, 1)).sum().backward()
    optimiser.step()
    save_state(path, model, model, optimiser, {"step": 3, "seed": 0, "share": 0.5})
    tensors, meta = read_tensors(path)
    older = {"format": meta["format"], "progress": meta["facts"]}
    slim = {name: value for name, value in tensors.items() if name != "random.torch"}
    return [safetensors.torch.save(tensors, older), safetensors.torch.save(slim, meta)]


WEIGHTS_FACTS = "configuration in weights"


def _weights(content: bytes, folder: Path) -> None:
    tensors = {"x": torch.ones(1)}
    meta = {"format": str(WEIGHTS), "config": content.decode("utf-8", "replace"), "facts": "{}"}
    load_model(written("weights.safetensors", safetensors.torch.save(tensors, meta), folder))


def _packed(content: bytes, folder: Path) -> None:
    read_packed(written("maps.npz.xz", lzma.compress(content, preset=0), folder))


def _anatomies(folder: Path) -> list[bytes]:
    labels = np.zeros((4, 4, 4), np.uint8)
    about = {"name": "a", "affine": np.eye(4).tolist(), "midplane": [1.0, 0.0, 0.0, 2.0]}
    text = json.dumps({"format": str(ANATOMIES), "maps": [about]}).encode()
    whole = io.BytesIO()
    np.savez(whole, about=np.frombuffer(text, np.uint8), a=labels)
    return [whole.getvalue()]


def _config(content: bytes, folder: Path) -> None:
    path = written("config.json", content, folder)
    changed(PRESETS["test"], flat(without_retired(read_file(path))))
    RunConfig.from_json(path.read_text("utf-8"))


def _configs(folder: Path) -> list[bytes]:
    texts = [PRESETS["test"].to_json(), PRESETS["tiny"].to_file(), '{"train": {"batch": 4}}']
    return [text.encode() for text in texts]


def _dials(content: bytes, folder: Path) -> None:
    changed(PRESETS["test"], read_settings(content.decode("utf-8", "replace").split("\n")))


def _dial_texts(folder: Path) -> list[bytes]:
    return [b"model.latent_spacing_mm=3\ntrain.patch_sides_mm=24,32", b"train.bf16=no",
            b"data.mix=brain:3,head:1\ndata.noise=0,0.1", b"model.operator=literal"]  # fmt: skip


def _root(content: bytes, folder: Path) -> None:
    written(META, content, folder)
    store_facts(folder)


def _roots(folder: Path) -> list[bytes]:
    write_attributes(folder, {"format": "medil-store-1", "window": [0.0, 1.0]})
    whole = json.loads((folder / META).read_text("utf-8"))
    del whole["attributes"][SUM]
    return [(folder / META).read_bytes(), json.dumps(whole).encode()]


def _stored_volume(content: bytes, folder: Path) -> None:
    if not (folder / "a").is_dir():
        (folder / "a").mkdir()
        write_attributes(folder, {"format": "medil-store-1", "window": None})
    written(f"a/{META}", content, folder)
    store = Store(folder)
    assert store.identity
    store.scans()


def _stored_volumes(folder: Path) -> list[bytes]:
    facts = {
        "name": "a", "subject": "", "kind": "head", "sha256": "0" * 64, "source": "a.nii",
        "spacing_mm": [1.0, 1.0, 2.0], "intensity": [0.0, 9.0], "places": 3,
        "levels": {"data": {"shape": [2, 2, 2], "base": 0.0, "unit": 1.0}}, "arrays": {},
    }  # fmt: skip
    return [json.dumps({"attributes": facts, "zarr_format": 3}).encode()]


# Manifests, rows and tables


def _manifest(content: bytes, folder: Path) -> None:
    read_manifest(written("ct.toml", content, folder))


def _manifests(folder: Path) -> list[bytes]:
    whole = (ROOT / "data_manifests" / "ct.toml").read_bytes()
    head, *files = whole.split(b"[[file]]")
    return [head + b"[[file]]" + b"[[file]]".join(files[:n]) for n in (1, 2)]


def _rows(content: bytes, folder: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rows_file.read_rows(written("fuzz.jsonl", content, folder))


def _recorded(folder: Path) -> list[bytes]:
    about = rows.Measurement("fuzz", "a", "b", "c", "d", "e", "")
    made = about.rows({"x": 1.0, "y": float("nan")}, {"x": "s", "y": "1"},
                      rows.Sampling("1", "1", 1, 2), 0.5, rows.Provenance.now("quick"))  # fmt: skip
    path = folder / "r.jsonl"
    rows_file.append_rows(path, made)
    content = path.read_bytes()
    path.unlink()
    bare = [{k: v for k, v in json.loads(line).items() if k != rows_file.CRC}
            for line in content.splitlines()]  # fmt: skip
    return [content, "\n".join(json.dumps(record) for record in bare).encode()]


def _table(content: bytes, folder: Path) -> None:
    for row in read_table(written("scans.csv", content, folder), "path"):
        read_covariates(row.cells)


def _tables(folder: Path) -> list[bytes]:
    return [b"path,subject,age,sex\na.nii,s1,34,F\n\"b, c.nii\",s2,89+,n/a\n",
            "Path;Age\nä.nii;3,5\n".encode("utf-16"), b"path\na.nii\n"]  # fmt: skip


def _bids(content: bytes, folder: Path) -> None:
    anat = folder / "sub-01" / "anat"
    if not anat.is_dir():
        anat.mkdir(parents=True)
        (folder / MARK).write_text("{}", "utf-8")
        (anat / "sub-01_T1w.nii").write_bytes(b"")
    written("participants.tsv", content, folder)
    written("sub-01/sub-01_sessions.tsv", content, folder)
    read_bids(folder)


def _people(folder: Path) -> list[bytes]:
    return [
        b"participant_id\tage\tsex\nsub-01\t34\tF\nsub-02\tn/a\tm\n",
        b"session_id\tage\nses-1\t35\n",
        b"participant_id\tsession_id\tsex\nsub-01\t\tO\n",
    ]


TARGETS: tuple[Target, ...] = (
    Target("NIfTI", partial(_image, ".nii"), partial(_cases, nifti.cases), 100_000),
    Target("MGH", partial(_image, ".mgh"), partial(_cases, mgh.cases), 60_000),
    Target("NRRD", partial(_image, ".nrrd"), partial(_cases, nrrd.cases), 100_000),
    Target("DICOM", partial(_image, ""), partial(_cases, dicom.cases), 30_000),
    Target("latent", _latent, _latents, 150_000),
    Target(FACTS, _latent_facts, _facts_of_latents, 80_000),
    Target("run state", _state, _states, 40_000),
    Target(WEIGHTS_FACTS, _weights, _configs, 60_000),
    Target("packed anatomies", _packed, _anatomies, 60_000),
    Target("configuration", _config, _configs, 80_000),
    Target("settings", _dials, _dial_texts, 60_000),
    Target("store", _root, _roots, 150_000),
    Target("volume in a store", _stored_volume, _stored_volumes, 40_000),
    Target("manifest", _manifest, _manifests, 60_000),
    Target("rows", _rows, _recorded, 20_000),
    Target("table of scans", _table, _tables, 200_000),
    Target("BIDS tables", _bids, _people, 100_000),
)


def emptied(folder: Path) -> Path:
    """The folder, with nothing in it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
