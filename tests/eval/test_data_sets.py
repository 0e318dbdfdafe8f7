"""The page on data says what the manifests say."""

import pytest

from eval.pages import data_sets
from medil.data.manifest import dataset, datasets


@pytest.fixture(scope="module")
def sets():
    return data_sets.every()


def test_every_manifest_stands_in_one_of_two_tables(sets):
    names = {one.name for one in sets}
    assert names == set(datasets())
    here, there = data_sets.overview(sets), data_sets.elsewhere(sets)
    assert len(here) + len(there) == len(sets)
    assert set(there["Access"]) <= {"open", "registration", "agreement"}
    assert "How" not in there and all(here["Licence"])
    assert data_sets.citations(sets).count("\n- ") == len(here) - 1


def test_people_ages_and_voxels_are_those_of_the_files(sets):
    table = data_sets.scans(sets).set_index(["Data set", "Split"])
    files = [entry for entry in dataset("ds002748").files if entry.split == "test"]
    line = table.loc[("ds002748", "test")]
    assert line["People"] == len(files) == 6
    women = sum(entry.sex == "f" for entry in files)
    assert line["Women / men"] == f"{women} / {6 - women}"
    low, high = min(e.age for e in files), max(e.age for e in files)
    assert line["Age (years)"].startswith(f"{low:g} to {high:g}, median")
    assert line["Voxels (mm)"] == "0.87 × 0.87 × 1.00"
    assert table.loc[("synthseg_labels", "train")]["Age (years)"] == "not published"


def test_the_figure_has_a_mark_for_every_file_of_known_voxels(sets):
    pytest.importorskip("matplotlib", reason="needs the extra `plots`")
    *marks, cubes = data_sets.voxel_figure(sets).axes[0].lines
    known = [[e for e in one.files if e.spacing_mm] for one in sets]
    assert [len(line.get_xdata()) for line in marks] == [len(k) for k in known if k]
    assert list(cubes.get_xdata()) == list(cubes.get_ydata())
