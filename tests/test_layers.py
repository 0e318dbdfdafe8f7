"""Knowledge flows one way: grid, data, model, train, command line; then eval, then notebooks."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CORE = {"torch", "numpy", "scipy", "nibabel", "safetensors", "tqdm"}

# Within a layer, modules may import each other, but never in a circle.
LAYERS = (
    ["errors", "files", "memory", "affine", "device", "workers"],
    ["grid", "tiles"],
    ["intensity", "formats", "formats_nrrd", "volume", "stream", "describe", "manifest"],
    ["analytic", "cortex", "airway", "phantoms", "anatomy", "painting", "heads", "cohort"],
    ["attributes"],
    ["sampling", "samples", "stored", "store"],
    ["config", "texture", "gpu", "bands", "resample", "reference", "blocks", "rolling"],
    ["separable", "fused", "pointwise", "waves", "implicit"],
    ["latent", "shortcut", "piecewise", "autoencoder", "rivals", "baselines"],
    ["losses", "checkpoint", "prefetch", "pool", "train", "processes", "journal", "loop", "engine"],
    ["latentset", "flow", "flow_train", "generate"],
    ["toys", "ceiling"],
    ["infer", "plots"],
    [
        "verbs_shared",
        "verbs_evaluate",
        "verbs_sample",
        "verbs_store",
        "verbs_train",
        "verbs",
        "cli",
    ],
)
LAYER_OF = {module: number for number, layer in enumerate(LAYERS) for module in layer}


def module_names() -> list[str]:
    return sorted(path.stem for path in (ROOT / "medil").glob("*.py") if path.stem != "__init__")


def imports(path: Path) -> set[str]:
    """Dotted names that a file imports anywhere, functions included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def imports_at_import_time(path: Path) -> set[str]:
    """Top-level packages that importing a file imports."""
    found = set()
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


def neighbours(module: str) -> set[str]:
    """Modules of medil that a module of medil imports."""
    names = set(module_names())
    dotted = [name.split(".") for name in imports(ROOT / f"medil/{module}.py")]
    return {part[1] for part in dotted if part[0] == "medil" and part[1:] and part[1] in names}


def test_every_module_has_a_layer():
    assert set(module_names()) <= set(LAYER_OF), "give the new module a place in LAYERS"


@pytest.mark.parametrize("module", module_names())
def test_a_module_imports_only_from_its_left(module):
    above = {name for name in neighbours(module) if LAYER_OF[name] > LAYER_OF[module]}
    assert not above, f"{module} imports {sorted(above)}, which stand to its right"


def test_no_module_imports_itself_in_a_circle():
    state: dict[str, str] = {}

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert state.get(module) != "open", f"a circle: {' -> '.join((*path, module))}"
        if module not in state:
            state[module] = "open"
            for other in sorted(neighbours(module)):
                visit(other, (*path, module))
            state[module] = "done"

    for module in module_names():
        visit(module, ())


@pytest.mark.parametrize("module", module_names())
def test_medil_never_imports_eval(module):
    assert not {n for n in imports(ROOT / f"medil/{module}.py") if n.split(".")[0] == "eval"}


@pytest.mark.parametrize(
    "module",
    sorted(
        set(module_names())
        - {
            "cli",
            "verbs",
            "verbs_evaluate",
            "verbs_sample",
            "verbs_shared",
            "verbs_store",
            "verbs_train",
        }
    ),
)
def test_importing_medil_needs_the_core_dependencies_alone(module):
    needed = imports_at_import_time(ROOT / f"medil/{module}.py")
    assert needed - set(sys.stdlib_module_names) - {"medil"} <= CORE
