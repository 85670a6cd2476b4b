"""Imports go one way: in the order of packages below, and between modules without a circle."""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import asr

ORDER = """
errors types system labels audio nets data lm decode score g2p corpora model recognize plot train
report serve cli __main__
""".split()
#: What may import a framework: nothing else depends on how a command or a recipe is read.
FRAMEWORKS = {
    "hydra": {"train.recipe", "cli"},
    "omegaconf": {"train.recipe", "cli"},
    "typer": {"cli"},
    "starlette": {"serve"},
    "uvicorn": {"serve"},
}
ROOT = Path(asr.__file__).parent
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(ROOT.rglob("*.py"))
    if "conf" not in path.parts and "recipes" not in path.parts
}


def imports_of(path: Path) -> Iterator[str]:
    """Dotted names, with those that `from package import module` brings."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def own_imports(module: str) -> set[str]:
    """The modules of this package that ``module`` imports, anywhere in its text."""
    named = {name.removeprefix("asr.") for name in imports_of(MODULES[module])}
    return {name for name in named if name in MODULES} - {module, "__init__"}


def package_of(module: str) -> str:
    return module.split(".")[0]


def test_every_module_lies_in_a_package_of_the_order():
    assert {package_of(m) for m in MODULES} - {"__init__"} <= set(ORDER)


@pytest.mark.parametrize("module", [m for m in MODULES if m != "__init__"])
def test_imports_follow_the_order_of_packages(module):
    place = ORDER.index(package_of(module))
    later = {m for m in own_imports(module) if ORDER.index(package_of(m)) > place}
    assert not later, f"{module} imports {', '.join(sorted(later))}"


def test_there_is_no_circle_between_modules():
    graph = {}
    for module in MODULES:
        if module == "__init__":
            continue
        # That a module is imported after its own package is no circle.
        graph[module] = own_imports(module) - {package_of(module)}
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_frameworks_are_known_where_they_belong_only():
    wrong = []
    for module, path in MODULES.items():
        for name in imports_of(path):
            allowed = FRAMEWORKS.get(name.split(".")[0])
            if allowed is not None and not {module, package_of(module)} & allowed:
                wrong.append(f"{module} imports {name}")
    assert not wrong


def test_no_two_files_of_tests_have_one_name():
    """Folders of tests are no packages: pytest would take the second for the first."""
    names = [path.name for path in Path(__file__).parent.rglob("test_*.py")]
    assert len(names) == len(set(names))
