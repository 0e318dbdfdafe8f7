"""The container file says what the Makefile, the lock and pyproject.toml say; none is built."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
TOGETHER = ("torch", "torchvision", "lpips")  # apart, one may bring another build of torch


def text(name: str) -> str:
    return re.sub(r"\\\n\s*", "", (ROOT / name).read_text("utf-8"))


def instructions(kind: str) -> list[str]:
    return re.findall(rf"^{kind} (.+)$", text("Containerfile"), re.M)


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def installs(name: str) -> list[list[str]]:
    """What `pip install` is told, without how much it says and where it looks."""
    calls = re.findall(r"pip install (.+)", text(name))
    left_out = r"--(quiet|no-cache-dir|disable-pip-version-check)\b|--extra-index-url \S+"
    return [re.sub(left_out, "", call).split() for call in calls]


def test_the_image_has_the_oldest_python_that_the_project_takes():
    (image,) = instructions("FROM")
    version = re.fullmatch(r"python:(3\.\d+)-slim", image)[1]
    assert project()["requires-python"].startswith(f">={version}")


def test_it_installs_what_make_installs_and_nothing_else():
    ours = [call for call in installs("Makefile") if call[0] in ("-r", "--no-deps")]
    assert installs("Containerfile") == ours
    assert len(ours) == 2


def test_every_version_is_that_of_the_lock():
    assert "==" not in text("Containerfile")
    locked = (ROOT / "requirements.lock").read_text("utf-8")
    assert all(re.search(rf"^{name}==[\d.]+$", locked, re.M) for name in TOGETHER)


def test_torch_comes_for_cpus_from_the_index_that_binder_uses():
    option = "--extra-index-url"
    assert option in text("Containerfile")
    assert re.search(rf"^{option} \S+/cpu$", text("binder/requirements.txt"), re.M)


def test_what_it_copies_exists_and_is_not_ignored():
    copied = [name for line in instructions("COPY") for name in line.split()[:-1]]
    kept = re.findall(r"^!(.+)$", text(".containerignore"), re.M)
    assert sorted(copied) == sorted(kept)
    assert [name for name in copied if not (ROOT / name).exists()] == []


def test_medil_is_started_by_a_user_without_rights():
    body = text("Containerfile")
    (user,) = instructions("USER")
    assert user != "root" and f"useradd --create-home --uid 1000 {user}" in body
    assert body.index("USER ") < body.index("ENTRYPOINT ")
    assert instructions("ENTRYPOINT") == ['["medil"]'] and "medil" in project()["scripts"]
