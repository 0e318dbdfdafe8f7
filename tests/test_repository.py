"""What a reader of the repository relies on: one version, a wheel of medil alone, whole pages."""

import importlib.util
import json
import pkgutil
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

import medil
from medil.data.releases import releases

ROOT = Path(__file__).parents[1]
TEXT = {
    ".py",
    ".md",
    ".toml",
    ".yml",
    ".yaml",
    ".cff",
    ".ipynb",
    ".json",
    ".jsonl",
    ".css",
    ".lock",
}
SKIPPED = {".venv", "_build", ".git", "dist", "runs"}


def text_files() -> list[Path]:
    tops = [path for path in ROOT.iterdir() if path.name not in SKIPPED]
    paths = [path for top in tops for path in ([top] if top.is_file() else top.rglob("*"))]
    named = {ROOT / "Makefile", ROOT / ".ci/run"}
    return [p for p in paths if p.is_file() and (p.suffix in TEXT or p in named)]


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def pins(name: str = "requirements.lock") -> dict[str, str]:
    lines = (ROOT / name).read_text("utf-8").splitlines()
    pairs = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {plain(name): version for name, version in pairs}


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> zipfile.ZipFile:
    if importlib.util.find_spec("hatchling") is None:
        pytest.skip("hatchling is not installed; `make test` installs it")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return zipfile.ZipFile(next(folder.glob("*.whl")))


def test_the_wheel_holds_medil_alone(wheel):
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"medil"}


def test_the_wheel_holds_every_file_of_the_package_but_the_other_releases(wheel):
    kept = [p for p in (ROOT / "medil").rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    left_out = {path.relative_to(ROOT).as_posix() for path in kept} - set(wheel.namelist())
    others = {Path(release.path).name for name, release in releases().items() if name != "tiny"}
    assert left_out == {f"medil/releases/{name}" for name in others}


def test_the_wheel_is_small(wheel):
    assert Path(wheel.filename).stat().st_size < 6e6


def test_the_wheel_needs_the_core_dependencies_alone(wheel):
    name = next(name for name in wheel.namelist() if name.endswith("METADATA"))
    required = re.findall(r"^Requires-Dist: ([\w-]+)(.*)$", wheel.read(name).decode(), re.M)
    core = {dependency for dependency, rest in required if "extra ==" not in rest}
    assert core == {"torch", "numpy", "scipy", "nibabel", "psutil", "safetensors", "tqdm"}


def test_versions_agree():
    citation = (ROOT / "CITATION.cff").read_text("utf-8")
    changes = (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert re.search(r"^version: (\S+)$", citation, re.M)[1] == medil.__version__
    assert re.search(r"^## (\S+)", changes, re.M)[1] == medil.__version__


def test_an_archive_is_described_as_the_citation_is():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    described = json.loads((ROOT / ".zenodo.json").read_text("utf-8"))
    same = {
        "title": "title",
        "version": "version",
        "keywords": "keywords",
        "abstract": "description",
    }
    assert all(cited[name] == described[other] for name, other in same.items())
    assert str(cited["date-released"]) == described["publication_date"]
    assert described["creators"] == cited["authors"] and described["license"] in cited["license"]
    papers = {paper["url"].rsplit("/", 1)[-1] for paper in cited["references"]}
    assert {
        r["identifier"].removeprefix("arXiv:") for r in described["related_identifiers"]
    } <= papers


def test_every_dependency_and_extra_is_locked():
    extras = dict(project()["project"]["optional-dependencies"])
    assert extras.pop("fuzz") == ["atheris>=3"]  # for Linux alone; tests do without
    extras = extras.values()
    wanted = [*project()["project"]["dependencies"], *(name for extra in extras for name in extra)]
    names = {plain(re.split(r"[\[<>=!~ ]", name)[0]) for name in wanted} - {"medil-book"}
    assert names <= set(pins())


def test_the_oldest_versions_are_those_that_the_package_claims():
    extras = project()["project"]["optional-dependencies"]
    claims = dict(n.split(">=") for n in [*project()["project"]["dependencies"], *extras["cli"]])
    oldest = pins("constraints/oldest.txt")
    assert set(claims) == set(oldest)
    for name, version in claims.items():
        assert f"{oldest[name]}.0".startswith(f"{version}."), name


def test_the_lock_pins_releases_from_an_index_alone():
    for name, version in pins().items():
        assert re.fullmatch(r"[\w.]+", version), f"{name}=={version}"
        assert not name.startswith("nvidia")


def test_install_hints_name_our_distribution_and_not_the_stranger_s():
    hint = re.compile(r"pip install [`'\"]?medil\b(?!-book)|['\"]medil\\?\[[a-z]+,?")
    hits = {p.name for p in text_files() if hint.search(p.read_text("utf-8"))}
    assert hits <= {"README.md", Path(__file__).name}  # README warns of `pip install medil`


def test_the_distribution_is_named_medil_book_wherever_a_reader_looks(wheel):
    assert project()["project"]["name"] == "medil-book"
    assert Path(wheel.filename).name.startswith("medil_book-")
    for page in ("README.md", "CITATION.cff", "CHANGELOG.md"):
        assert "medil-book" in (ROOT / page).read_text("utf-8"), page


def test_no_path_of_a_machine_is_written_down():
    folders = [f"{folder}/" for folder in (ROOT, Path.home()) if folder != Path("/")]
    for path in text_files():
        text = path.read_text("utf-8")
        for folder in folders:
            assert folder not in text, f"{path.relative_to(ROOT)}: {folder}"


def test_the_two_commands_stand_in_the_readme_and_in_the_makefile():
    readme = (ROOT / "README.md").read_text("utf-8")
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for verb in ("book", "test"):
        assert f"make {verb}" in readme
        assert re.search(rf"^{verb}:", makefile, re.M)


def test_the_readme_names_every_room():
    readme = (ROOT / "README.md").read_text("utf-8")
    rooms = [p.parent.name for p in (ROOT / "medil").glob("*/__init__.py")]
    assert [room for room in rooms if f"  {room}/" not in readme] == []


def test_the_interface_page_documents_every_module():
    page = (ROOT / "book/api.md").read_text("utf-8")
    documented = set(re.findall(r"automodule:: medil\.([\w.]+)", page))
    paths = (path.relative_to(ROOT / "medil") for path in (ROOT / "medil").rglob("*.py"))
    modules = {".".join(path.with_suffix("").parts) for path in paths if path.name[:2] != "__"}
    assert documented == modules


def test_binder_installs_the_notebooks_extra_at_locked_versions():
    lines = (ROOT / "binder/requirements.txt").read_text("utf-8").splitlines()
    assert "-e .[notebooks]" in lines and "-c ../requirements.lock" in lines
    assert "notebooks" in project()["project"]["optional-dependencies"]
    runtime = (ROOT / "binder/runtime.txt").read_text("utf-8").strip()
    assert (
        f"Programming Language :: Python :: {runtime.removeprefix('python-')}"
        in (project()["project"]["classifiers"])
    )


def test_every_path_and_name_in_contributing_exists():
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    for quoted in re.findall(r"`([^`\s]+)`", text):
        if re.fullmatch(r"(?:medil|eval)(?:\.\w+)+", quoted):
            pkgutil.resolve_name(quoted)
        elif re.search(r"/|\.(?:py|md|lock)$", quoted) and "NAME" not in quoted:
            built = quoted.startswith((".venv", "_build"))
            assert built or (ROOT / quoted).exists(), quoted
    for module in re.findall(r"python -m ([\w.]+)", text):
        assert importlib.util.find_spec(module), module
    for verb in re.findall(r"\bmake (\w+)", text):
        assert re.search(rf"^{verb}:", (ROOT / "Makefile").read_text("utf-8"), re.M), verb


def test_contributing_answers_six_questions():
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    answers = re.split(r"^### ", text.partition("## Habits")[0], flags=re.M)[1:]
    assert len(answers) == 6
    assert all(re.search(r"^1\. ", answer, re.M) for answer in answers)


def test_links_between_pages_lead_somewhere():
    for page in [*(ROOT / "book").glob("*.md"), *ROOT.glob("[RC]*.md")]:
        for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
            if not link.startswith(("http", "#", "mailto")):
                assert (page.parent / link.split("#")[0]).exists(), f"{page.name}: {link}"


def test_figures_of_pages_have_alt_text():
    for page in [*(ROOT / "book").glob("*.md"), ROOT / "README.md"]:
        text = page.read_text("utf-8")
        assert "![](" not in text, page.name
        for block in re.findall(r"```\{(?:figure|image)\}.*?```", text, re.S):
            assert re.search(r"^:alt: .{20,}", block, re.M), f"{page.name}: {block[:60]}"
