"""The house stays in order: who may import whom, and what no file may do."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("mgsym", "data_tools", "cli")
EXTRAS = {"ase", "matplotlib", "plotly"}  # optional, so imported where they are used


def sources(*folders: str) -> list[Path]:
    """Every Python file of some folders."""
    found = [file for folder in folders for file in sorted((ROOT / folder).rglob("*.py"))]
    return [file for file in found if "__pycache__" not in file.parts]


def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"), str(file))


def imported(node: ast.AST) -> list[str]:
    """Modules that an import statement names."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, "relative imports hide where a module lives"
        base = node.module or ""
        return [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return []


def imports(file: Path, top_level: bool = False) -> set[str]:
    """Modules that a file imports: anywhere, or as soon as it is imported itself."""
    walk = _without_functions(parsed(file)) if top_level else ast.walk(parsed(file))
    return {name for node in walk for name in imported(node)}


def _without_functions(node: ast.AST) -> Iterator[ast.AST]:
    yield node
    for child in ast.iter_child_nodes(node):
        lazy = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        if not lazy and not _only_for_types(child):
            yield from _without_functions(child)


def _only_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def names(module: str, *packages: str) -> bool:
    """Whether a module is one of `packages` or inside one."""
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def label(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


every_file = pytest.mark.parametrize("file", sources(*PACKAGES), ids=label)


@pytest.mark.parametrize("file", sources("mgsym"), ids=label)
def test_the_core_names_nothing_above_it(file: Path) -> None:
    if file == ROOT / "mgsym" / "__init__.py":
        found = imports(file, top_level=True)  # public names are looked up lazily there
    else:
        found = imports(file)
    assert not [m for m in found if names(m, "mgsym.cli", "mgsym.data_tools")]


@pytest.mark.parametrize("file", sources("data_tools"), ids=label)
def test_data_tools_name_no_command(file: Path) -> None:
    assert not [m for m in imports(file) if names(m, "mgsym.cli")]


@pytest.mark.parametrize("file", sources("mgsym", "data_tools"), ids=label)
def test_only_commands_know_the_terminal(file: Path) -> None:
    assert not [m for m in imports(file) if names(m, "click", "rich")]


@pytest.mark.parametrize("file", sources("cli"), ids=label)
def test_rich_lives_in_the_console(file: Path) -> None:
    if file.name != "console.py":
        assert not [m for m in imports(file) if names(m, "rich")]


@pytest.mark.parametrize("file", sources("cli"), ids=label)
def test_commands_import_heavy_things_inside(file: Path) -> None:
    heavy = [m for m in imports(file, top_level=True) if names(m, "torch", "numpy", "rich")]
    light = ("mgsym", "mgsym.cli", "mgsym.errors", "mgsym.__version__")
    ours = [m for m in imports(file, top_level=True) if names(m, "mgsym")]
    assert not heavy
    assert all(m in light or names(m, "mgsym.cli", "mgsym.errors") for m in ours)


@every_file
def test_dependencies_are_the_promised_ones(file: Path) -> None:
    allowed = {"torch", "numpy", "mgsym", "click", "rich", *sys.stdlib_module_names}
    at_once = {module.partition(".")[0] for module in imports(file, top_level=True)}
    assert at_once <= allowed
    assert {module.partition(".")[0] for module in imports(file)} <= allowed | EXTRAS


@pytest.mark.parametrize("file", sources(*PACKAGES, "tests"), ids=label)
def test_packages_are_imported_by_their_installed_names(file: Path) -> None:
    assert not [m for m in imports(file) if names(m, "cli", "data_tools")]


@every_file
def test_nothing_runs_what_it_reads(file: Path) -> None:
    for node in ast.walk(parsed(file)):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        keywords = {k.arg: ast.unparse(k.value) for k in node.keywords}
        assert called not in ("pickle.load", "pickle.loads", "eval", "exec", "os.system")
        assert keywords.get("allow_pickle", "False") == "False"
        assert keywords.get("weights_only", "True") == "True"
        assert keywords.get("shell", "False") == "False"
        if called == "torch.load":
            assert keywords.get("weights_only") == "True"
        if called in ("np.load", "numpy.load"):
            assert keywords.get("allow_pickle") == "False"


@every_file
def test_nothing_prints(file: Path) -> None:
    calls = [n for n in ast.walk(parsed(file)) if isinstance(n, ast.Call)]
    assert "print" not in [ast.unparse(call.func) for call in calls]


@every_file
def test_files_and_functions_stay_short(file: Path) -> None:
    assert len(file.read_text(encoding="utf-8").splitlines()) <= 400
    for node in ast.walk(parsed(file)):
        if isinstance(node, ast.FunctionDef):
            # what the function does, without the lines that say what it takes
            body = (node.end_lineno or 0) - _first_line(node) + 1
            assert body <= 70, f"{node.name} has {body} lines"


def _first_line(function: ast.FunctionDef) -> int:
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return body[0].lineno if body else function.lineno


def command_files() -> list[Path]:
    from mgsym.cli.main import COMMANDS

    return [ROOT / "cli" / f"{name.replace('-', '_')}.py" for name in COMMANDS]


@pytest.mark.parametrize("file", command_files(), ids=label)
def test_a_command_is_short(file: Path) -> None:
    assert len(file.read_text(encoding="utf-8").splitlines()) < 80


@every_file
def test_modules_say_what_they_are(file: Path) -> None:
    tree = parsed(file)
    assert ast.get_docstring(tree) or not tree.body


@pytest.mark.parametrize("file", sources("mgsym", "data_tools"), ids=label)
def test_public_functions_say_what_they_do(file: Path) -> None:
    silent = [node.name for node in _public(parsed(file)) if not ast.get_docstring(node)]
    assert silent == []


def _public(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.ClassDef]:
    for node in tree.body:
        if not isinstance(node, (ast.FunctionDef, ast.ClassDef)) or node.name.startswith("_"):
            continue
        if "overload" not in [ast.unparse(decorator) for decorator in node.decorator_list]:
            yield node


def test_only_the_fixture_knows_where_the_public_data_may_lie() -> None:
    texts = [
        file
        for pattern in ("*.py", "*.toml", "*.md", "*.cff", "Makefile", ".ci/*")
        for file in ROOT.rglob(pattern)
        if not {"build", ".venv", ".git", "__pycache__"} & set(file.relative_to(ROOT).parts)
    ]
    assert ROOT / "pyproject.toml" in texts
    here = {ROOT / "tests" / "conftest.py", Path(__file__).resolve()}
    naming = re.compile(r"[\"'/]shared[\"'/]")
    found = [label(f) for f in texts if f not in here and naming.search(f.read_text("utf-8"))]
    assert found == []
