"""Recipes and tissue tables that come with the package, by name."""

import re
from pathlib import Path

from histoloom.errors import ConfigError, OutputError
from histoloom.files import write_bytes

FOLDER = Path(__file__).parent
_TISSUE = ".tissue.toml"


def recipe_names() -> list[str]:
    """Names of the recipes, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.toml") if not path.name.endswith(_TISSUE))


def describe(name: str) -> str:
    """The first sentence of the comment at the head of a recipe."""
    lines = (FOLDER / f"{name}.toml").read_text(encoding="utf-8").splitlines()
    comment = " ".join(line.strip("# ") for line in lines[: lines.index("[data]")] if line.startswith("#"))
    return re.split(r"(?<=[a-z)])\. ", comment)[0].removesuffix(".")


def find_recipe(name: str) -> Path:
    """The file of a recipe: `name` itself if that is a file or ends in .toml, else the recipe of the package.

    Raises ConfigError for an unknown name.
    """
    if Path(name).is_file() or name.endswith(".toml"):
        return Path(name)
    if name not in recipe_names():
        raise ConfigError(f"{name}: no such recipe; give a TOML file or one of {', '.join(recipe_names())}")
    return FOLDER / f"{name}.toml"


def copy_recipe(name: str, folder: Path) -> list[Path]:
    """Copy a recipe and the tissue tables that it mentions into `folder`; returns the new files.

    Raises ConfigError for an unknown name, and OutputError for a file that exists.
    """
    if name not in recipe_names():
        raise ConfigError(f"{name}: no such recipe; known: {', '.join(recipe_names())}")
    text = (FOLDER / f"{name}.toml").read_text(encoding="utf-8")
    tables = [path for path in sorted(FOLDER.glob(f"*{_TISSUE}")) if path.name in text]
    copies = {folder / path.name: path for path in (FOLDER / f"{name}.toml", *tables)}
    for copy in copies:
        if copy.exists():
            raise OutputError(f"{copy}: exists already; move it away, or name another folder with --out")
    for copy, original in copies.items():
        write_bytes(copy, original.read_bytes())
    return list(copies)
