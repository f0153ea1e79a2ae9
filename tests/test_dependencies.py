"""What the package imports is declared, and what is declared is imported."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "histoloom"
# Needed, though no line imports it: the codecs of tifffile, and the C library of openslide-python.
UNSEEN = {"imagecodecs", "openslide-bin"}


def imported(path: Path) -> Iterator[str]:
    """Top-level names of the modules that a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield str(node.module).split(".")[0]
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "import_module":
            yield from (str(a.value).split(".")[0] for a in node.args if isinstance(a, ast.Constant))


def declared() -> set[str]:
    """Distributions that the package or one of its extras asks for; `dev` is for tests alone."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lists = [project["dependencies"], *(v for k, v in project["optional-dependencies"].items() if k != "dev")]
    names = {re.split(r"[\[<>=!~; ]", line)[0].lower() for lines in lists for line in lines}
    return names - {"histoloom"}


def test_every_import_is_declared_and_every_dependency_is_imported():
    of_module = packages_distributions()
    found: dict[str, str] = {}
    for path in SOURCE.rglob("*.py"):
        for name in imported(path):
            if name not in sys.stdlib_module_names and name not in ("histoloom", "_typeshed"):
                found[name] = str(path.relative_to(SOURCE))
    names = {module: {d.lower().replace("_", "-") for d in of_module.get(module, [module])} for module in found}
    undeclared = {module: found[module] for module, mine in names.items() if not mine & declared()}
    assert undeclared == {}, "add the distribution to pyproject.toml"
    unused = declared() - set().union(*names.values()) - UNSEEN
    assert unused == set(), "no module imports it: remove it from pyproject.toml"
