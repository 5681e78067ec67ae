"""The house stays in order: who may import whom, and what no file may do."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("mgsym", "data_tools", "cli")
EXTRAS = {"ase", "matplotlib", "plotly", "scipy"}  # optional, so imported where they are used
LONGEST_FILE, LONGEST_FUNCTION, LONGEST_COMMAND = 800, 80, 80  # lines

# From the ground up: a module imports what stands in its own row's package or in a row before.
LAYERS = (
    ("mgsym.errors", "mgsym.version"),
    ("mgsym", "mgsym.data_tools", "mgsym.data_tools.simulation"),  # they hold packages
    ("mgsym.utils", "mgsym.data_tools.simulation.units"),
    ("mgsym.structure",),
    ("mgsym.graph", "mgsym.data_tools.public_dataset"),
    ("mgsym.nn", "mgsym.evaluation", "mgsym.data_tools.formats"),
    (
        "mgsym.descriptors",
        "mgsym.data_tools.sample",
        "mgsym.data_tools.study",
        "mgsym.data_tools.simulation.potentials",
    ),
    (
        "mgsym.models",
        "mgsym.uncertainty",
        "mgsym.data_tools.simulation.optimizers",
        "mgsym.data_tools.simulation.dynamics",
    ),
    (
        "mgsym.training",
        "mgsym.data_tools.simulation.saddle_search",
        "mgsym.data_tools.simulation.vibrations",
        "mgsym.data_tools.simulation.deformation",
    ),
    (
        "mgsym.prediction",
        "mgsym.data_tools.simulation.labelling",
        "mgsym.data_tools.shipped_model",
    ),
    ("mgsym.explanation", "mgsym.benchmark"),
    ("mgsym.rendering",),
    ("mgsym.data_tools.workflows",),
    ("mgsym.data_tools.displacement_test", "mgsym.data_tools.report"),
    ("mgsym.cli",),
)
ROW = {package: row for row, packages in enumerate(LAYERS) for package in packages}


@cache
def sources(*folders: str) -> tuple[Path, ...]:
    """Every Python file of some folders."""
    files = [file for folder in folders for file in sorted((ROOT / folder).rglob("*.py"))]
    return tuple(file for file in files if "__pycache__" not in file.parts)


@cache
def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"), str(file))


@cache
def nodes(file: Path) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(parsed(file)))


def imported(node: ast.AST) -> list[str]:
    """Modules that an import statement names."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, "relative imports hide where a module lives"
        base = node.module or ""
        return [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return []


@cache
def imports(file: Path, top_level: bool = False) -> frozenset[str]:
    """Modules that a file imports: anywhere, or as soon as it is imported itself."""
    walk = _without_functions(parsed(file)) if top_level else nodes(file)
    return frozenset(name for node in walk for name in imported(node))


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


def module_name(file: Path) -> str:
    """What a file is imported as: cli/ and data_tools/ install under mgsym."""
    parts = list(file.relative_to(ROOT).with_suffix("").parts)
    parts = parts if parts[0] == "mgsym" else ["mgsym", *parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def modules() -> dict[str, Path]:
    return {module_name(file): file for file in sources(*PACKAGES)}


def package_of(module: str) -> str:
    """The longest entry of LAYERS that holds a module."""
    held = [package for package in ROW if names(module, package)]
    return max(held, key=len)


def dependencies(file: Path) -> set[str]:
    """Modules of the project that a file imports; public names are looked up lazily in mgsym."""
    top_level = module_name(file) == "mgsym"
    return {name for name in imports(file, top_level) if name in modules()} - {module_name(file)}


def refused(files: tuple[Path, ...], *packages: str) -> list[str]:
    """Which files import one of some packages, and what."""
    return [
        f"{label(file)}: {module}"
        for file in files
        for module in sorted(imports(file))
        if names(module, *packages)
    ]


def test_every_module_has_its_layer() -> None:
    homeless = [
        module
        for module in modules()
        if package_of(module) in ("mgsym", "mgsym.data_tools") and module not in ROW
    ]
    assert homeless == []


def test_imports_point_down() -> None:
    up = []
    for module, file in modules().items():
        for other in sorted(dependencies(file)):
            here, there = package_of(module), package_of(other)
            if here != there and ROW[there] >= ROW[here]:
                up.append(f"{module} imports {other}")
    assert up == []


def test_modules_import_each_other_in_no_circle() -> None:
    needs = {module: dependencies(file) for module, file in modules().items()}
    # a package hands on the names of its modules: importing from it is importing from them
    for module in needs:
        needs[module] -= {package for package in needs if names(module, package)}
    while free := [module for module, others in needs.items() if not others & needs.keys()]:
        for module in free:
            del needs[module]
    assert {module: sorted(others & needs.keys()) for module, others in needs.items()} == {}


def test_only_commands_know_the_terminal() -> None:
    assert refused(sources("mgsym", "data_tools"), "click", "rich") == []
    others = tuple(file for file in sources("cli") if file.name != "console.py")
    assert refused(others, "rich") == []


def test_commands_import_heavy_things_inside() -> None:
    light = ("mgsym.cli", "mgsym.errors", "mgsym.version")
    for file in sources("cli"):
        at_once = imports(file, top_level=True)
        assert not [m for m in at_once if names(m, "torch", "numpy", "rich")], label(file)
        ours = [m for m in at_once if names(m, "mgsym")]
        assert [m for m in ours if not names(m, *light)] == [], label(file)


def test_dependencies_are_the_promised_ones() -> None:
    allowed = {"torch", "numpy", "mgsym", "click", "rich", *sys.stdlib_module_names}
    for file in sources(*PACKAGES):
        at_once = {module.partition(".")[0] for module in imports(file, top_level=True)}
        assert at_once <= allowed, label(file)
        anywhere = {module.partition(".")[0] for module in imports(file)}
        assert anywhere <= allowed | EXTRAS, label(file)


def test_nothing_runs_what_it_reads() -> None:
    calls = [
        (file, node)
        for file in sources(*PACKAGES)
        for node in nodes(file)
        if isinstance(node, ast.Call)
    ]
    for file, node in calls:
        where = f"{label(file)}, line {node.lineno}"
        called = ast.unparse(node.func)
        keywords = {k.arg: ast.unparse(k.value) for k in node.keywords}
        assert called not in ("eval", "exec", "os.system"), where
        assert keywords.get("allow_pickle", "False") == "False", where
        assert keywords.get("weights_only", "True") == "True", where
        assert keywords.get("shell", "False") == "False", where
        if called == "torch.load":
            assert keywords.get("weights_only") == "True", where
        if called in ("np.load", "numpy.load"):
            assert keywords.get("allow_pickle") == "False", where


def test_files_and_functions_stay_short() -> None:
    long = []
    for file in sources(*PACKAGES):
        lines = len(file.read_text(encoding="utf-8").splitlines())
        if lines > LONGEST_FILE:
            long.append(f"{label(file)} has {lines} lines")
        for node in nodes(file):
            if isinstance(node, ast.FunctionDef):
                # what the function does, without the lines that say what it takes
                body = (node.end_lineno or 0) - _first_line(node) + 1
                if body > LONGEST_FUNCTION:
                    long.append(f"{label(file)}: {node.name} has {body} lines")
    assert long == []


def _first_line(function: ast.FunctionDef) -> int:
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return body[0].lineno if body else function.lineno


def test_a_command_is_short() -> None:
    from mgsym.cli.main import COMMANDS

    files = [ROOT / "cli" / f"{name.replace('-', '_')}.py" for name in COMMANDS]
    lengths = {label(file): len(file.read_text(encoding="utf-8").splitlines()) for file in files}
    assert {name: n for name, n in lengths.items() if n >= LONGEST_COMMAND} == {}


def test_modules_and_public_functions_say_what_they_are() -> None:
    silent = [
        label(file)
        for file in sources(*PACKAGES)
        if parsed(file).body and not ast.get_docstring(parsed(file))
    ]
    silent += [
        f"{label(file)}: {node.name}"
        for file in sources("mgsym", "data_tools")
        for node in _public(parsed(file))
        if not ast.get_docstring(node)
    ]
    assert silent == []


def _public(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.ClassDef]:
    for node in tree.body:
        if not isinstance(node, (ast.FunctionDef, ast.ClassDef)) or node.name.startswith("_"):
            continue
        if "overload" not in [ast.unparse(decorator) for decorator in node.decorator_list]:
            yield node


def test_no_module_takes_a_private_name_of_another() -> None:
    taken = [
        f"{label(file)}: {alias.name} of {node.module}"
        for file in sources(*PACKAGES)
        for node in nodes(file)
        if isinstance(node, ast.ImportFrom) and names(node.module or "", "mgsym")
        for alias in node.names
        if alias.name.startswith("_") and not alias.name.startswith("__")
    ]
    assert taken == []


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
