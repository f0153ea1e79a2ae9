"""Write what the reference pages take from the code: commands, recipe keys, columns, folders, the tree.

    python scripts/make_reference.py [--root DIR]

`cli.md` and `recipes.md` are written whole. In `files.md` and `docs/explanation/design.md` each block between
`<!-- generated: NAME -->` and `<!-- end -->` is replaced. The Python reference needs no script: mkdocstrings reads it
from the docstrings when the site is built.
"""

import argparse
import ast
import dataclasses
import importlib
import inspect
import json
import re
import tomllib
import types
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import typer

from histoloom.cli.main import app
from histoloom.experiments.recipe import Recipe

ROOT = Path(__file__).parents[1]
PACKAGE = Path("src/histoloom")
NOTE = "<!-- Written by scripts/make_reference.py; do not edit. -->\n\n"
LONGEST = 92  # characters of a comment in the tree
FOLDERS = {  # block in files.md: module whose docstring shows the folder
    "dataset folder": "patches/store.py",
    "run folder": "experiments/run.py",
    "woven folder": "generation/woven_patch.py",
    "exports": "generation/export.py",
    "canvas files": "canvas/weave.py",
    "redrawn folder": "canvas/inpaint.py",
    "pairs folder": "canvas/pairs.py",
    "report folder": "evaluation/report.py",
    "encoder folder": "evaluation/encoder_run.py",
    "look folder": "discovery/look_files.py",
    "tables folder": "experiments/reproduce.py",
    "embeddings folder": "discovery/embed.py",
    "types folder": "discovery/cluster.py",
    "types table": "discovery/tree.py",
    "maps folder": "discovery/draw.py",
    "crop bank": "generation/bank.py",
    "study folder": "study/folder.py",
    "study report": "study/report.py",
}
COLUMNS = {"patch columns": "patches/schema.py", "woven columns": "generation/woven_patch.py"}
METAVARS = {Path: "PATH", int: "INT", float: "NUMBER", bool: ""}
TOML_TYPES = {int: "integer", float: "number", str: "text", bool: "true or false", Path: "path"}


def render_all(root: Path) -> dict[Path, str]:
    """Text of every generated file, by its path below `root`."""
    blocks = {name: folder(root / PACKAGE / path) for name, path in FOLDERS.items()}
    blocks |= {name: columns(root, Path(path)) for name, path in COLUMNS.items()}
    blocks["tree"] = tree(root)
    reference = Path("docs/reference")
    written = {reference / "cli.md": cli(), reference / "recipes.md": recipes(root)}
    for path in (reference / "files.md", Path("docs/explanation/design.md")):
        written[path] = fill((root / path).read_text(encoding="utf-8"), blocks)
    return written


def fill(text: str, blocks: dict[str, str]) -> str:
    """`text` with each generated block replaced."""
    return re.sub(
        r"(<!-- generated: (.+?) -->\n).*?(<!-- end -->)",
        lambda match: f"{match[1]}{blocks[match[2]].rstrip()}\n{match[3]}",
        text,
        flags=re.DOTALL,
    )


def commands(group: typer.Typer, before: str = "") -> Iterator[tuple[str, Callable]]:
    """The function of every command by the words that call it; those of a group after those that stand alone."""
    for command in group.registered_commands:
        if command.callback is not None:
            yield f"{before}{command.name}", command.callback
    for inner in group.registered_groups:
        yield from commands(typing.cast(typer.Typer, inner.typer_instance), f"{before}{inner.name} ")


def cli() -> str:
    """Every command: usage, help, and a table of its arguments and options."""
    parts = [
        NOTE + "# Command line\n",
        "`histoloom COMMAND -h` shows the same. An error prints one line; `--debug` shows its traceback. Exit codes: "
        "0 done; 1 error; 2 wrong usage; 3 done, but `patches`, `discover embed` or `discover maps` skipped slides; "
        "130 stopped by Ctrl-C; 143 stopped by SIGTERM.\n",
    ]
    for name, function in commands(app):
        rows = list(parameters(function))
        needed = [spelled.strip("`") for spelled, default, _ in rows if default == "required"]
        parts.append(f"## {name}\n\n    {' '.join(['histoloom', name, *needed, '[OPTIONS]'])}\n")
        parts.append(paragraphs(function.__doc__) + "\n")
        parts.append(table(("argument or option", "default", "meaning"), rows))
    return "\n".join(parts)


def parameters(command: Callable) -> Iterator[tuple[str, str, str]]:
    """Arguments and options of a command as they are typed, their defaults, their help."""
    hints = typing.get_type_hints(command, include_extras=True)
    for parameter in inspect.signature(command).parameters.values():
        kind, info = typing.get_args(hints[parameter.name])
        metavar = " ".join(METAVARS.get(k, "TEXT") for k in values_of(kind))
        named = [d for d in (info.default, *(info.param_decls or ())) if isinstance(d, str) and d.startswith("--")]
        flag = (named or [f"--{parameter.name.replace('_', '-')}"])[0]
        is_argument = isinstance(info, typer.models.ArgumentInfo)
        spelled = parameter.name.upper() if is_argument else f"{flag} {metavar}".strip()
        values = parameter.default if isinstance(parameter.default, tuple) else (parameter.default,)
        is_unset = all(value is None or value is False or value == "" for value in values)
        default = "" if is_unset else f"`{' '.join(map(str, values))}`"
        yield f"`{spelled}`", "required" if parameter.default is parameter.empty else default, one_line(info.help)


def values_of(kind: object) -> list[object]:
    """The types of the values that an option takes: `int` twice for `tuple[int, int] | None`."""
    if kind is type(None):
        return []
    inner = typing.get_args(kind)
    return [value for part in inner for value in values_of(part)] if inner else [kind]


def recipes(root: Path) -> str:
    """Every table and key of a recipe, with type, default and comment."""
    parts = [
        NOTE + "# Recipes\n",
        "A recipe is a TOML file. `histoloom train` saves the resolved copy, with all defaults, as `recipe.toml` in "
        "the run folder. An unknown key or a value of another type is refused by name. Paths are relative to the "
        'recipe. A table marked "absent by default" is left out unless the recipe has it.\n',
    ]
    return "\n".join(parts + recipe_table(root, "", Recipe, None, absent=False))


def recipe_table(root: Path, name: str, kind: type, usual: object, absent: bool) -> list[str]:
    """A table of a recipe and those nested in it; `usual` holds the defaults that its place gives it."""
    notes: dict[str, str] = {}
    for base in reversed(kind.__mro__[:-1]):  # fields that are inherited are explained where they are declared
        notes |= comments(Path(importlib.import_module(base.__module__).__file__ or ""), base.__name__)
    rows, nested = [], []
    for field in dataclasses.fields(kind):
        default = getattr(usual, field.name) if usual is not None else default_of_field(field)
        inner = next((k for k in options(field.type) if isinstance(k, type) and dataclasses.is_dataclass(k)), None)
        if inner is not None:
            path = f"{name}.{field.name}".strip(".")
            given = default if dataclasses.is_dataclass(default) else None
            nested += recipe_table(root, path, inner, given, absent=type(None) in options(field.type))
        else:
            rows.append((f"`{field.name}`", toml_type(field.type), toml_value(default), notes.get(field.name, "")))
    title = f"## {f'[{name}]' if name else 'Top level'}{' (absent by default)' if absent else ''}\n"
    about = [title, paragraphs(kind.__doc__) + "\n"]
    return about + ([table(("key", "type", "default", "meaning"), rows)] if rows else []) + nested


def options(annotation: Any) -> tuple:
    """The members of a union; any other annotation alone."""
    is_union = isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union
    return typing.get_args(annotation) if is_union else (annotation,)


def default_of_field(field: dataclasses.Field) -> object:
    """The default of a field; MISSING where it has none."""
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def toml_type(annotation: Any) -> str:
    """What may stand behind a key, in words."""
    kind = next(k for k in options(annotation) if k is not type(None))
    if typing.get_origin(kind) is typing.Literal:
        return " or ".join(f'`"{choice}"`' for choice in typing.get_args(kind))
    if typing.get_origin(kind) is tuple:
        return f"list of {toml_type(typing.get_args(kind)[0])}"
    return TOML_TYPES[kind]


def toml_value(default: object) -> str:
    """A default as it would be typed."""
    if default is dataclasses.MISSING:
        return "required"
    return "none" if default is None else f"`{json.dumps(default, default=str)}`"


def columns(root: Path, path: Path) -> str:
    """The COLUMNS of a module as a table: names and types of the Arrow schema, meanings from the comments."""
    module = importlib.import_module(".".join(("histoloom", *path.with_suffix("").parts)))
    notes = comments(root / PACKAGE / path)
    rows = []
    for field in module.COLUMNS:
        null = ", may be null" if field.nullable else ""
        rows.append((f"`{field.name}`", arrow_type(field.type) + null, notes.get(field.name, "")))
        inner = field.type.value_type if pa.types.is_list(field.type) else field.type
        if pa.types.is_struct(inner) and pa.types.is_list(field.type):
            rows += [(f"`{field.name}[].{f.name}`", arrow_type(f.type), notes.get(f.name, "")) for f in inner]
    return table(("column", "type", "meaning"), rows)


def arrow_type(kind: pa.DataType) -> str:
    """The name of an Arrow type, in short."""
    if pa.types.is_list(kind):
        return f"list({arrow_type(kind.value_type)})"
    if pa.types.is_struct(kind):
        return "struct" if kind.num_fields > 2 else f"struct({', '.join(f.name for f in kind)})"
    return {"double": "float64", "float": "float32"}.get(str(kind), str(kind))


def comments(path: Path, kind: str = "") -> dict[str, str]:
    """Comments behind named things: the fields of class `kind`, or else calls and tuples that begin with a name."""
    text = path.read_text(encoding="utf-8")
    found: dict[str, str] = {}
    for node in ast.walk(ast.parse(text)):
        if kind and isinstance(node, ast.ClassDef) and node.name == kind:
            fields = [n for n in node.body if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)]
            found |= {typing.cast(ast.Name, n.target).id: comment(text, n) for n in fields}
        elif not kind and isinstance(node, ast.Call | ast.Tuple):
            items = node.args if isinstance(node, ast.Call) else node.elts
            if len(items) == 2 and isinstance(items[0], ast.Constant) and not isinstance(items[1], ast.Constant):
                found.setdefault(str(items[0].value), comment(text, node))
    return found


def comment(text: str, node: ast.stmt | ast.expr) -> str:
    """The comment on the last line of `node`."""
    return text.splitlines()[(node.end_lineno or 1) - 1].partition("  # ")[2].strip()


def folder(path: Path) -> str:
    """The indented block of a module's docstring: the layout of a folder."""
    lines = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("    "))
    end = next((i for i in range(start, len(lines)) if lines[i] and not lines[i].startswith("    ")), len(lines))
    block = "\n".join(line.removeprefix("    ") for line in lines[start:end]).rstrip()
    return f"```text\n{block}\n```"


def tree(root: Path) -> str:
    """The package in the order of its import law, each module with the first sentence of its docstring."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    layers = project["tool"]["importlinter"]["contracts"][0]["layers"]
    order = [name.strip() for layer in reversed(layers) for name in layer.split("|")]
    lines = ["src/histoloom/"]
    for name in order:
        path = root / PACKAGE / name
        if not path.is_dir():
            lines.append(tree_line(path.with_suffix(".py"), 1))
            continue
        lines.append(f"  {name}/")
        for module in sorted(path.rglob("*.py"), key=lambda m: (m.parent, m.name != "__init__.py", m.name)):
            if module.name == "__init__.py" and module.parent != path:
                lines.append(f"{'  ' * len(module.relative_to(root / PACKAGE).parts[:-1])}{module.parent.name}/")
            if module.read_text(encoding="utf-8").strip():
                lines.append(tree_line(module, len(module.relative_to(root / PACKAGE).parts)))
    return "```text\n" + "\n".join(lines) + "\n```"


def tree_line(path: Path, depth: int) -> str:
    """A module with what it is about."""
    about = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    sentence = re.split(r"(?<=[.?])\s(?=[A-Z])|:$", about.split("\n\n")[0].replace("\n", " "))[0].removesuffix(".")
    if len(sentence) > LONGEST:
        sentence = re.split(r"[:;]\s", sentence)[0]
    return f"{'  ' * depth + path.name:28} {sentence}"


def paragraphs(text: str | None) -> str:
    """Text with the indentation and line breaks of its source removed; paragraphs stay."""
    return "\n\n".join(one_line(block) for block in re.split(r"\n\s*\n", (text or "").strip()))


def one_line(text: str | None) -> str:
    """Text without line breaks."""
    return " ".join((text or "").split())


def table(titles: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A Markdown table."""
    lines = [titles, tuple("---" for _ in titles), *(tuple(cell.replace("|", "\\|") for cell in row) for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def main() -> None:
    """Write what has changed, and name it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--root", type=Path, default=ROOT)
    root = parser.parse_args().root
    for path, text in render_all(root).items():
        if not (root / path).exists() or (root / path).read_text(encoding="utf-8") != text:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text, encoding="utf-8")
            typer.echo(f"wrote {path}")


if __name__ == "__main__":
    main()
