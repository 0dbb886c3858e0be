"""The direction of dependencies, from the import statements of every module."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import maqd

ROOT = Path(maqd.__file__).parent
MODULES = {
    ".".join(("maqd", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in sorted(ROOT.rglob("*.py"))
}

GROUND = {"errors", "machine", "optional"}
"""Modules directly in the package, which every room may import."""
ALLOWED = {
    "io": set(),
    "numerics": set(),
    "settings": {"numerics"},
    "recipes": {"settings", "numerics"},
    "graph": {"numerics", "io"},
    "spiking": {"graph", "numerics", "io"},
    "language": {"graph", "settings", "numerics", "io"},
    "plan": {"graph", "numerics"},
    "export": {"language", "plan", "graph", "settings", "numerics", "io"},
    "runtime": {"export", "language", "plan", "spiking", "graph", "settings", "numerics", "io"},
    "bench": {"runtime", "export", "plan", "graph", "settings", "numerics", "io"},
    "nn": {"settings", "numerics"},
    "models": {"nn", "settings", "numerics"},
    "data": {"settings", "numerics", "io"},
    "lowering": {"models", "nn", "runtime", "language", "graph", "numerics", "settings"},
    "convert": {"lowering", "nn", "settings", "numerics"},
    "training": {
        "convert", "lowering", "language", "graph", "report", "models", "data", "nn", "settings", "numerics", "io",
    },
    "report": {"runtime", "graph", "nn", "settings", "numerics", "io"},
    "experiment": {
        "training", "report", "lowering", "runtime", "graph", "recipes", "models", "data", "nn", "settings", "numerics",
        "io",
    },
    "hub": {"training", "runtime", "graph", "data", "settings"},
    "cli": {
        "bench", "runtime", "export", "plan", "spiking", "language", "graph", "nn", "models", "lowering", "convert",
        "data", "training", "report", "experiment", "recipes", "settings", "numerics", "io",
    },
}  # fmt: skip
"""The rooms of the package and which others each may import, at any depth of its code."""
TORCH = {"nn", "models", "data", "lowering", "convert", "training", "report", "experiment"}
"""Rooms that may load torch when they are imported; every other one must run with NumPy alone."""
TORCH_MODULES = {"maqd.cli.demo", "maqd.spiking.modules"}
"""What needs torch from its first line in rooms that do not."""


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def statements(node: ast.AST, *, nested: bool) -> Iterator[ast.Import | ast.ImportFrom]:
    """Import statements that run: those of functions only if `nested`, those for type checkers never."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child
        elif is_type_checking(child):
            yield from (found for other in child.orelse for found in statements(other, nested=nested))
        elif nested or not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from statements(child, nested=nested)


@cache
def imports(module: str, *, nested: bool) -> set[str]:
    """Full names of the modules that a module imports."""
    found = set()
    for statement in statements(ast.parse(MODULES[module].read_text()), nested=nested):
        if isinstance(statement, ast.Import):
            found |= {alias.name for alias in statement.names}
            continue
        assert statement.level == 0, f"{module} imports relatively"
        source = statement.module or ""
        for alias in statement.names:
            full = f"{source}.{alias.name}"
            found.add(full if full in MODULES else source)
    return found


def own(names: set[str]) -> set[str]:
    return {name for name in names if name in MODULES}


def with_packages(names: set[str]) -> set[str]:
    """The modules and the packages that importing them runs."""
    return {".".join(name.split(".")[:depth]) for name in names for depth in range(1, name.count(".") + 2)}


def part(module: str) -> str:
    """The package or module directly below `maqd` that a module belongs to."""
    return module.split(".")[1] if "." in module else ""


def loads_torch(module: str) -> list[str] | None:
    """A chain of module-level imports from `module` to torch, or None."""
    chains, seen = [[module]], {module}
    for chain in chains:  # breadth first: grows while it is read
        for name in sorted(with_packages(imports(chain[-1], nested=False))):
            if name == "torch":
                return [*chain, name]
            if name in MODULES and name not in seen:
                seen.add(name)
                chains.append([*chain, name])
    return None


TORCH_FREE = [name for name in MODULES if part(name) not in TORCH and name not in TORCH_MODULES]


def test_the_lists_of_this_file_see_the_package():
    assert {"maqd", "maqd.numerics.states", "maqd.graph.interpreter", "maqd.errors"} <= set(TORCH_FREE)
    assert loads_torch("maqd.nn.functional") == ["maqd.nn.functional", "torch"]
    assert "maqd.errors" in imports("maqd.numerics.states", nested=False)
    assert part("maqd.nn.functional") == "nn"


@pytest.mark.parametrize("module", TORCH_FREE)
def test_torch_free_modules_never_load_torch(module: str):
    assert loads_torch(module) is None


def test_every_module_is_in_a_room():
    assert {part(module) for module in MODULES} == {"", *GROUND, *ALLOWED}


@pytest.mark.parametrize("room", ALLOWED)
def test_rooms_import_only_what_they_may(room: str):
    assert not {
        (module, name)
        for module in MODULES
        if part(module) == room
        for name in own(imports(module, nested=True))
        if part(name) not in {"", room, *GROUND, *ALLOWED[room]}
    }


def test_the_ground_stands_alone():
    for module in GROUND:
        assert {part(name) for name in own(imports(f"maqd.{module}", nested=True))} <= GROUND


def test_numbers_build_on_each_other_in_one_order():
    order = ["limits", "states", "border", "fixedpoint", "packing", "bounds"]
    for place, module in enumerate(order):
        below = {"maqd.errors", *(f"maqd.numerics.{name}" for name in order[:place])}
        assert own(imports(f"maqd.numerics.{module}", nested=True)) <= below


def cycle(graph: dict[str, set[str]]) -> list[str] | None:
    """A cycle of the graph, by depth-first search, or None."""
    done: set[str] = set()

    def visit(node: str, path: list[str]) -> list[str] | None:
        if node in path:
            return [*path[path.index(node) :], node]
        if node in done:
            return None
        for successor in sorted(graph.get(node, set())):
            if found := visit(successor, [*path, node]):
                return found
        done.add(node)
        return None

    return next((found for node in sorted(graph) if (found := visit(node, []))), None)


def test_the_search_for_cycles_finds_them():
    assert cycle({"a": {"b"}, "b": {"c", "d"}, "c": set(), "d": {"b"}}) == ["b", "d", "b"]
    assert cycle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) is None


@pytest.mark.parametrize("nested", [False, True])
def test_modules_do_not_import_each_other_in_a_circle(nested: bool):
    assert cycle({module: own(imports(module, nested=nested)) - {module} for module in MODULES}) is None


def test_packages_do_not_import_each_other_in_a_circle():
    graph: dict[str, set[str]] = {}
    for module in MODULES:
        outside = {part(name) for name in own(imports(module, nested=True))} - {part(module), ""}
        graph.setdefault(part(module), set()).update(outside)
    assert cycle(graph) is None


def loaded_after(statement: str) -> list[str]:
    """Which of some heavy packages a fresh interpreter has loaded after a statement."""
    heavy = ["torch", "lightning", "sklearn", "datasets", "PIL", "matplotlib", "pandas", "onnx", "onnxruntime", "yaml"]
    code = f"{statement}\nimport json, sys\nprint(json.dumps([name for name in {heavy} if name in sys.modules]))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return json.loads(result.stdout)


@pytest.mark.parametrize(
    "statement",
    [
        "import maqd",
        "import maqd.numerics.states, maqd.numerics.fixedpoint, maqd.errors",
        "import maqd.cli, maqd.graph.container, maqd.graph.interpreter, maqd.runtime.verify",
        "import maqd.cli.info, maqd.cli.generate, maqd.cli.run, maqd.cli.verify, maqd.cli.export, maqd.cli.lower",
    ],
)
def test_importing_the_package_loads_nothing_heavy(statement: str):
    assert loaded_after(statement) == []
