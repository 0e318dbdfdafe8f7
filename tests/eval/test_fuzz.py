"""Fuzzed readers: seeds, packed inputs, former finds and random mutations end as they should."""

from __future__ import annotations

import functools
import json
import lzma

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch

pytest.importorskip("hypothesis", reason="hypothesis (extra dev) is not installed")
pytest.importorskip("nrrd", reason="pynrrd (extra nrrd) is not installed")
pytest.importorskip("pydicom", reason="pydicom (extra dicom) is not installed")
pytest.importorskip("zarr", reason="zarr (extra store) is not installed")

from hypothesis import given, settings
from hypothesis import strategies as st

from eval.fuzz import EXPERIMENT, judge, report
from eval.fuzz.corpus import CORPUS, MOST, read_corpus, write_corpus
from eval.fuzz.guided import dictionary, fuzzed, watched
from eval.fuzz.judge import Judge, fault_of
from eval.fuzz.targets import MOST_BYTES, TARGETS, Target, emptied, written
from medil.errors import InputError
from medil.system.tensors import read_tensors

FEW = settings(max_examples=20, derandomize=True, database=None, deadline=None)
KNOWN = read_corpus()
each_target = pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)


@st.composite
def mutated(draw, inputs: list[bytes]) -> bytes:
    """An input with one to three parts set, put in, taken out or cut off."""
    content = draw(st.sampled_from(inputs))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, max(0, len(content) - 1)))
        new = draw(st.binary(max_size=8) | st.sampled_from([b"NaN", b"-1", b"[]", b"null", b'"']))
        rest = content[at + draw(st.sampled_from([0, 1, len(new), 40])) :]
        content = content[:at] + new + draw(st.sampled_from([rest, rest, rest, b""]))
    return content


@pytest.fixture
def place(tmp_path):
    return emptied(tmp_path / "place")


@pytest.fixture(scope="module")
def seeds_of(tmp_path_factory):
    """The seeds of a target, made once."""
    place = tmp_path_factory.mktemp("seeds")
    return functools.cache(lambda target: target.seeds(emptied(place / "of")))


@each_target
def test_seeds_and_mutations_end_in_a_value_or_one_sentence(target, place, seeds_of):
    seeds = seeds_of(target)
    judged = Judge(target, place)
    for content in seeds[:: max(1, len(seeds) // 20)]:
        judged(content)

    @FEW
    @given(content=mutated([*seeds, *KNOWN.get(target.name, [])]))
    def mutate(content):
        judged(content)

    mutate()
    assert judged.finds == {} and judged.executions > 20


@each_target
def test_packed_inputs_end_in_a_value_or_one_sentence(target, place):
    judged = Judge(target, place)
    for content in KNOWN.get(target.name, [])[::2]:
        judged(content)
    assert judged.finds == {}


def test_the_packed_inputs_are_small_and_belong_to_targets():
    assert CORPUS.stat().st_size < 200_000
    assert set(KNOWN) <= {target.name for target in TARGETS}
    assert all(0 < len(inputs) <= MOST for inputs in KNOWN.values())
    assert max(len(content) for inputs in KNOWN.values() for content in inputs) <= MOST_BYTES


def test_seeds_fit_and_there_are_a_million_executions(seeds_of):
    assert sum(target.runs for target in TARGETS) >= 1_000_000
    for target in TARGETS:
        assert 0 < max(map(len, seeds_of(target))) <= MOST_BYTES


# The judge


def fault(read, place) -> str:
    return fault_of(Target("x", read, lambda folder: [b""], 1), b"", place)


def test_the_judge_sees_what_is_no_value_and_no_sentence(place, monkeypatch):
    def raises(error):
        def read(content, folder):
            raise error

        return read

    assert fault(lambda content, folder: 1, place) == ""
    assert fault(raises(InputError("it is short.")), place) == ""
    assert fault(raises(InputError("no end")), place).startswith("it is no sentence")
    assert fault(raises(KeyError("x")), place).startswith("it raises KeyError: test_fuzz.py:")
    monkeypatch.setattr(judge, "MOST_S", 0.05)

    def spin(content, folder):
        while True:
            pass

    assert fault(spin, place) == "it takes over 0.05 s"


def test_the_judge_sees_memory_and_keeps_the_first_input_of_a_fault(place, monkeypatch):
    monkeypatch.setattr(judge, "MOST_MB", 20.0)
    judged = Judge(Target("x", lambda c, f: len(c) and np.ones(6_000_000), list, 1), place)
    judge._forget_peak()
    for content in (b"", b"a", b"b"):
        judged(content)
    assert judged.executions == 3 and judged.peak_mb > 30
    assert list(judged.finds.items()) == [("it takes too much memory", b"a")]


def test_a_corpus_is_packed_and_read_again(tmp_path):
    many = {"a": [bytes([k]) for k in range(2 * MOST)], "b": [b"x"]}
    path = write_corpus(many, tmp_path / "c.tar.xz")
    assert read_corpus(path) == {"a": many["a"][::2], "b": [b"x"]}
    assert lzma.decompress(path.read_bytes()) and read_corpus(tmp_path / "none") == {}


def test_words_and_functions_for_the_fuzzer():
    words = dictionary([b'{"spacing_mm": 1}'])
    assert '"' + "".join(f"\\x{byte:02x}" for byte in b"spacing_mm") + '"' in words
    modules = {function.__module__ for function in watched()}
    assert {"medil.volume", "nibabel.nifti1"} <= modules
    assert not any(name.startswith(("torch", "eval.fuzz")) for name in modules)


def test_guided_runs_count_and_find():
    pytest.importorskip("atheris", reason="atheris (extra fuzz) is not installed")

    def read(content, folder):
        if content[:1] == b"b":
            raise KeyError(content)

    found = fuzzed(Target("x", read, lambda folder: [b"a", b"b"], 1), 300)
    assert found.executions == 300 and found.took_s > 0
    ((fault, content),) = found.finds.items()
    assert "KeyError" in fault and content.startswith(b"b")


# What it found: each was something else than a sentence once

DEEP = b"[" * 5000
FINDS = [
    ("facts of a latent", b"{}"),
    ("facts of a latent", b"[]"),
    ("facts of a latent", DEEP),
    ("facts of a latent", b'{"native": {"shape": [1e400, 1, 1], "affine_vox2ras": []}}'),
    ("configuration", b"{"),
    ("configuration", b'{"' + b"x" * 600 + b'": 1}'),
    ("configuration", b'{"a\x01  b": 1}'),
    ("configuration", DEEP),
    ("settings", b"d\x01    \0te"),
    ("settings", b"model.operator=" + b"x" * 600),
    ("store", b'{"attributes": {"format": "medil-store-1"}}'),
    ("store", DEEP),
    ("volume in a store", b'{"attributes": {"name": "a"}}'),
    (
        "volume in a store",
        b'{"attributes": {"name": "a", "sha256": "b", "source": "c", "levels": []}}',
    ),
    ("rows", DEEP),
    ("manifest", b'name = "x  y"'),
    ("manifest", b'"a  b" = 1'),
    ("BIDS tables", b"participant_id\tsession_id\n\tx\n\ty\n"),
]


@pytest.mark.parametrize("number", range(len(FINDS)))
def test_what_was_found_once_is_a_sentence(number, place):
    name, content = FINDS[number]
    target = next(target for target in TARGETS if target.name == name)
    assert fault_of(target, content, place) == ""


def test_a_latent_whose_place_holds_too_large_a_code_is_refused(place):
    target = next(target for target in TARGETS if target.name == "latent")
    found = [read_tensors(written("l", seed, place)) for seed in target.seeds(place)]
    tensors, meta = next(pair for pair in found if '"sform_code"' in pair[1]["facts"])
    facts = json.loads(meta["facts"])
    facts["source"]["place"]["sform_code"] = 157724
    content = safetensors.torch.save(tensors, meta | {"facts": json.dumps(facts)})
    with pytest.raises(InputError, match="metadata cannot be read"):
        target.read(content, place)


def test_a_refusal_of_tensors_does_not_quote_their_header(place):
    target = next(target for target in TARGETS if target.name == "latent")
    header = json.dumps({"mean": {"dtype": "F32" + "c" * 900}}).encode()
    content = len(header).to_bytes(8, "little") + header
    assert fault_of(target, content, place) == ""


def test_a_state_without_random_numbers_or_facts_is_refused(place):
    target = next(target for target in TARGETS if target.name == "run state")
    tensors, meta = read_tensors(written("s", target.seeds(place)[0], place))
    few = {name: value for name, value in tensors.items() if name != "random.torch"}
    odd = tensors | {"random.torch": torch.zeros(3, dtype=torch.uint8)}
    bare = {"format": meta["format"]}
    for held, about in (
        (few, meta),
        (odd, meta),
        (tensors, bare),
        (tensors, bare | {"facts": "{"}),
    ):
        content = safetensors.torch.save(held, about)
        with pytest.raises(InputError, match=r"state\.safetensors"):
            target.read(content, place)
        assert fault_of(target, content, place) == ""


@pytest.mark.parametrize(
    "at",
    [
        "",
        "x",
        "0001-01-01T00:00:00+00:00",
        "2026-13-01T00:00:00",
        "2026-W01-1",
        "2026-01-01T00:00:00+00:80",
    ],
)
def test_a_row_without_a_moment_is_no_row(at, place):
    target = next(target for target in TARGETS if target.name == "rows")
    record = json.loads(target.seeds(place)[1].splitlines()[0]) | {"recorded_at": at}
    content = json.dumps(record).encode()
    assert fault_of(target, content, place) == ""
    with pytest.raises(InputError, match="no whole row"):
        target.read(content, place)


# The report


def recorded(finds: int) -> pd.DataFrame:
    values = {"executions": 1000, "finds": finds, "kept": 3, "slowest_s": 0.25, "peak_mb": 12.4}
    lines = [
        {"subject": name, "metric": metric, "value": value, "time_s": 2.0, "engine": "atheris 3"}
        for name in ("NIfTI", "rows")
        for metric, value in (values | ({"finds": 0} if name == "rows" else {})).items()
    ]
    return pd.DataFrame(lines)


def test_the_table_counts_each_reader_and_all():
    table = report.table(recorded(1)).set_index("Reader")
    assert list(table.index) == ["NIfTI", "rows", "all"]
    assert table.loc["all"].tolist() == [2000, 1, 6, 4, 0.25, 12]


def test_the_verdict_names_what_was_found():
    assert "2,000 executions of 2 readers under atheris 3 ended 0 times" in (
        report.verdict(recorded(0))
    )
    assert "(NIfTI)" in report.verdict(recorded(2))


def test_conditions_are_parsed():
    parsed = EXPERIMENT.factors(pd.Series(["atheris 3 | nibabel 5"]))  # type: ignore[misc]
    assert parsed.iloc[0].tolist() == ["atheris 3", "nibabel 5"]
