"""Knowledge flows one way, room by room: medil, then eval, then notebooks."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CORE = {"torch", "numpy", "scipy", "nibabel", "psutil", "safetensors", "tqdm"}

# A room, or a file at the top, imports from itself and from its left.
ROOMS = (
    *("errors", "formats", "checksums", "dials", "config", "system", "box", "grid", "io", "regrid"),
    *("volume", "latent", "synth", "data", "layers", "model", "training", "anatomy", "diffusion"),
    *("tutorial", "plots", "preprocess", "cli", "__main__"),
)


def modules(package: str) -> dict[str, Path]:
    """Dotted name to file."""
    paths = sorted((ROOT / package).rglob("*.py"))
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in paths]
    return {name.removesuffix(".__init__"): path for name, path in zip(names, paths, strict=True)}


MEDIL = modules("medil")
INSIDE = sorted(name for name in MEDIL if name != "medil")
each_module = pytest.mark.parametrize("module", INSIDE)


def imports(path: Path, everywhere: bool = True) -> set[str]:
    """Dotted names that a file imports: anywhere, or when it is imported itself."""
    tree = ast.parse(path.read_text("utf-8"))
    found = set()
    for node in ast.walk(tree) if everywhere else tree.body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def neighbours(module: str) -> set[str]:
    """Modules of medil that a module of medil imports."""
    return {name for dotted in imports(MEDIL[module]) if (name := longest(dotted))} - {module}


def longest(dotted: str) -> str:
    """The module that a dotted name lies in; empty outside the rooms."""
    while dotted and dotted not in MEDIL:
        dotted = dotted.rpartition(".")[0]
    return "" if dotted == "medil" else dotted


def room(module: str) -> str:
    return module.split(".")[1]


def test_every_room_is_listed():
    assert {room(module) for module in INSIDE} == set(ROOMS)


@each_module
def test_a_module_imports_only_from_its_left(module):
    own = ROOMS.index(room(module))
    right = sorted(name for name in neighbours(module) if ROOMS.index(room(name)) > own)
    assert not right, f"{module} imports {right}, which stand to its right"


def test_no_module_imports_itself_in_a_circle():
    state: dict[str, str] = {}

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert state.get(module) != "open", f"a circle: {' -> '.join((*path, module))}"
        if module not in state:
            state[module] = "open"
            for other in sorted(neighbours(module)):
                visit(other, (*path, module))
            state[module] = "done"

    for module in INSIDE:
        visit(module, ())


@each_module
def test_medil_never_imports_eval(module):
    assert not {n for n in imports(MEDIL[module]) if n.split(".")[0] == "eval"}


@pytest.mark.parametrize("module", [m for m in INSIDE if room(m) != "cli"])
def test_importing_medil_needs_the_core_dependencies_alone(module):
    needed = {name.split(".")[0] for name in imports(MEDIL[module], everywhere=False)}
    assert needed - set(sys.stdlib_module_names) - {"medil"} <= CORE
