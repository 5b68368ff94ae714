"""The rules of the house: small modules and folders, no circles, shared code that is shared.

Who may import whom is in the contracts of import-linter, in pyproject.toml.
"""

import ast
from collections import Counter
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
STAGES = ("generate", "train", "evaluate")
FOLDERS = ("common", *STAGES)
MOST_LINES, MOST_MODULES = 350, 12


def modules() -> Mapping[str, Path]:
    """Return the source files by the name under which they are imported."""
    found = {}
    for path in sorted(p for folder in FOLDERS for p in (ROOT / folder).rglob("*.py")):
        name = str(path.relative_to(ROOT).with_suffix("")).replace("/", ".").removesuffix(".__init__")
        found[f"sclmkb.{name}"] = path
    return found


def imports(own: str, known: Mapping[str, Path], *, lazy: bool) -> set[str]:
    """Return the modules of this project that a module imports, those inside functions only if ``lazy``."""
    found: set[str] = set()
    for node in _nodes(ast.parse(known[own].read_text("utf-8")), lazy):
        if isinstance(node, ast.ImportFrom) and node.module:
            inside = {f"{node.module}.{alias.name}" for alias in node.names} & known.keys()
            found |= inside or ({node.module} & known.keys())
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Registry" and lazy:
            package = ast.literal_eval(node.args[0])  # whose modules it loads, all of them
            found |= {name for name in known if name.startswith(f"{package}.")}
        elif (
            lazy
            and isinstance(node, ast.Call)
            and "import_module" in (text := ast.unparse(node))
            and "__package__" in text
        ):
            found |= {name for name in known if name.startswith(f"{own.rpartition('.')[0]}.")}  # any of its package
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names} & known.keys()
    return found - {own}


def _nodes(tree: ast.AST, lazy: bool) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        if not lazy and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test) and not lazy:
            continue
        yield node
        yield from _nodes(node, lazy)


_ROOMS_OF_ALL = ("sclmkb.common.executors", "sclmkb.common.studies", "sclmkb.common.processes")
"""Any stage may use these, though one alone does so today."""

MODULES = modules()
ALL_IMPORTS = {name: imports(name, MODULES, lazy=True) for name in MODULES}


def test_modules_are_short() -> None:
    lines = {name: len(path.read_text("utf-8").splitlines()) for name, path in MODULES.items()}
    assert {name: n for name, n in lines.items() if n > MOST_LINES} == {}


def test_a_folder_holds_few_modules() -> None:
    count = Counter(path.parent for path in MODULES.values() if path.name != "__init__.py")
    assert {folder: n for folder, n in count.items() if n > MOST_MODULES} == {}


def test_modules_import_each_other_in_no_circle() -> None:
    graph = {name: imports(name, MODULES, lazy=False) for name in MODULES}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"circle: {' -> '.join(error.args[1])}")


def test_what_is_common_serves_two_stages() -> None:
    """A module of common is needed, itself or through others of common, by two stages at least."""
    needed: dict[str, set[str]] = {name: set() for name in MODULES}
    for stage in STAGES:
        left = [name for name in MODULES if name.split(".")[1] == stage]
        while left:
            for other in ALL_IMPORTS[left.pop()]:
                if stage not in needed[other]:
                    needed[other].add(stage)
                    left.append(other)
    alone = {
        name: sorted(stages)
        for name, stages in needed.items()
        if name.startswith("sclmkb.common.")
        and len(stages) < 2
        and MODULES[name].name != "__init__.py"
        and not name.startswith(_ROOMS_OF_ALL)
    }
    assert alone == {}
