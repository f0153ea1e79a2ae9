"""Write docs/reference and the tree in README.md from the code, so that neither can fall behind it.

    python scripts/make_reference.py [--root DIR]

`cli.md` comes from the commands, `api.md` from the public names, `recipes.md` from the dataclasses of a recipe with
their comments; the tree and the tables of columns and folders from the modules themselves.
"""

import argparse
import ast
import inspect
import json
import re
import tomllib
import typing
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import typer

from histoloom import __all__ as public_names
from histoloom.cli.main import app

ROOT = Path(__file__).parents[1]
PACKAGE = Path("src/histoloom")
NOTE = "<!-- Written by scripts/make_reference.py; do not edit. -->\n\n"


CHOICES = {
    "Conditioning": 'Literal["unconditional", "map", "embedding", "crops-in-place", "crops-as-reference"]',
    "Precision": 'Literal["auto", "fp32", "bf16"]',
}
QUOTE = '"'  # of annotations that name their own class
LONGEST = 92  # characters of a comment in the tree
OTHER_FOLDERS = {"recipes": "*.toml", "examples": "*.py", "benchmarks": "*.py", "scripts": "*.py"}
OTHER_LINES = (
    "tests/                       mirrors src/histoloom; conftest.py draws small tissue",
    "docs/                        tutorial, how-to, reference (generated), explanation, experiments, benchmarks",
)
METAVARS = {Path: "PATH", int: "INT", float: "NUMBER", bool: ""}


@dataclass(frozen=True)
class Param:
    """An argument or option as it is typed, its default, its help."""

    spelled: str
    default: str
    help: str


@dataclass(frozen=True)
class Source:
    """A parsed module: its path below the package, its text by line, its tree."""

    path: Path
    lines: list[str]
    tree: ast.Module

    @property
    def module(self) -> str:
        """Dotted name."""
        return ".".join(("histoloom", *self.path.with_suffix("").parts)).removesuffix(".__init__")

    def text(self, node: ast.AST) -> str:
        """The code of `node` as it is written, on one line."""
        return " ".join(ast.get_source_segment("\n".join(self.lines), node).split())

    def comment(self, node: ast.AST) -> str:
        """What stands behind `  # ` on the last line of `node`."""
        return self.lines[node.end_lineno - 1].partition("  # ")[2].strip()


def read_sources(root: Path) -> dict[Path, Source]:
    """All modules of the package by their path below it."""
    found = {}
    for path in sorted((root / PACKAGE).rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        found[path.relative_to(root / PACKAGE)] = Source(
            path.relative_to(root / PACKAGE), text.splitlines(), ast.parse(text)
        )
    return found


def render_all(root: Path) -> dict[Path, str]:
    """Text of every generated file, by its path below `root`."""
    sources = read_sources(root)
    blocks = {
        "tree": render_tree(root, sources),
        "patch columns": render_columns(sources[Path("patches/schema.py")]),
        "woven columns": render_columns(sources[Path("generation/export.py")]),
        "dataset folder": render_folder(sources[Path("patches/store.py")]),
        "run folder": render_folder(sources[Path("experiments/run.py")]),
        "woven folder": render_folder(sources[Path("generation/export.py")]),
        "report folder": render_folder(sources[Path("evaluation/report.py")]),
        "tables folder": render_folder(sources[Path("experiments/reproduce.py")]),
        "embeddings folder": render_folder(sources[Path("discovery/embed.py")]),
        "types folder": render_folder(sources[Path("discovery/cluster.py")]),
        "types table": render_folder(sources[Path("discovery/tree.py")]),
        "maps folder": render_folder(sources[Path("discovery/draw.py")]),
        "crop bank": render_folder(sources[Path("generation/bank.py")]),
    }
    reference = Path("docs/reference")
    written = {
        reference / "cli.md": render_cli(),
        reference / "api.md": render_api(sources),
        reference / "recipes.md": render_recipes(sources),
    }
    for path in (reference / "files.md", Path("README.md")):
        written[path] = fill((root / path).read_text(encoding="utf-8"), blocks)
    return written


def fill(text: str, blocks: dict[str, str]) -> str:
    """`text` with what stands between `<!-- generated: NAME -->` and `<!-- end -->` replaced by block NAME."""
    return re.sub(
        r"(<!-- generated: (.+?) -->\n).*?(<!-- end -->)",
        lambda match: f"{match[1]}{blocks[match[2]].rstrip()}\n{match[3]}",
        text,
        flags=re.DOTALL,
    )


def commands(group: typer.Typer, before: str = "") -> list[tuple[str, typer.models.CommandInfo]]:
    """Commands by the words that call them, those of a group after those that stand alone."""
    own = [(f"{before}{command.name}", command) for command in group.registered_commands]
    return own + [row for g in group.registered_groups for row in commands(g.typer_instance, f"{before}{g.name} ")]


def render_cli() -> str:
    """Every command: its help, its usage, a table of its arguments and options."""
    parts = [
        NOTE + "# Command line\n",
        "`histoloom COMMAND --help` says the same. An error is one line and exit code 1; `--debug` shows where it came "
        "from.\n",
    ]
    for name, command in commands(app):
        params = _params(command.callback)
        needed = [p.spelled for p in params if p.default == "required"]
        usage = " ".join(["histoloom", name, *needed, "[OPTIONS]"])
        parts.append(f"## {name}\n\n    {usage}\n")
        parts.append(_paragraphs(inspect.getdoc(command.callback)))
        rows = [(f"`{p.spelled}`", p.default, p.help) for p in params]
        parts.append(_table(("argument or option", "default", "meaning"), rows))
    return "\n".join(parts)


def render_api(sources: dict[Path, Source]) -> str:
    """Every public name: where it lives, signature, fields, docstring, public methods."""
    homes = _homes(sources[Path("__init__.py")])
    parts = [
        NOTE + "# Python\n",
        _paragraphs(ast.get_docstring(sources[Path("__init__.py")].tree)),
        "Everything below is imported from `histoloom`; anything else may change without notice.\n",
    ]
    for name in public_names:
        source = next(s for s in sources.values() if s.module == homes[name])
        node = next(n for n in source.tree.body if _name_of(n) == name)
        parts.append(f"## {name}\n\n`{source.module}.{name}`\n")
        parts += _describe(node, source, name)
    return "\n".join(parts)


def render_recipes(sources: dict[Path, Source]) -> str:
    """Every table and key of a recipe, with type, default and comment."""
    classes = {n.name: (n, s) for s in sources.values() for n in s.tree.body if isinstance(n, ast.ClassDef)}
    parts = [
        NOTE + "# Recipes\n",
        "A recipe is a TOML file; `histoloom train` saves the resolved copy, with all defaults, as `recipe.toml` in "
        "the run folder. An unknown key or a value of another type is refused by name. Paths are relative to the "
        "recipe. A table that is marked as absent stands for something that is left out unless the recipe has it.\n",
    ]
    parts += _recipe_table("", "Recipe", {}, classes)
    return "\n".join(parts)


def render_tree(root: Path, sources: dict[Path, Source]) -> str:
    """The package in the order of its import law, each module with the first words of its docstring; then the rest."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    layers = project["tool"]["importlinter"]["contracts"][0]["layers"]
    order = ["__init__", *(name.strip() for layer in reversed(layers) for name in layer.split("|"))]

    def place(path: Path) -> tuple:
        top = path.parts[0].removesuffix(".py")
        return order.index(top) if top in order else len(order), path.parent, path.name != "__init__.py", path.name

    lines, opened = ["src/histoloom/"], set()
    for path in sorted(sources, key=place):
        for parent in reversed(path.parents[:-1]):
            if parent not in opened:
                opened.add(parent)
                lines.append(f"{'  ' * len(parent.parts)}{parent.name}/")
        if sentence := _first_sentence(ast.get_docstring(sources[path].tree)):
            lines.append(_tree_line(path.name, len(path.parts), sentence))
    for folder, pattern in OTHER_FOLDERS.items():
        lines.append(f"{folder}/")
        for path in sorted((root / folder).glob(pattern)):
            text = path.read_text(encoding="utf-8")
            about = ast.get_docstring(ast.parse(text)) if path.suffix == ".py" else text.splitlines()[0].strip("# ")
            lines.append(_tree_line(path.name, 1, _first_sentence(about)))
    return "```text\n" + "\n".join([*lines, *OTHER_LINES]) + "\n```"


def render_columns(source: Source) -> str:
    """The `pa.field(...)` entries of a module's COLUMNS as a table."""
    schema = next(n for n in source.tree.body if isinstance(n, ast.Assign) and _target(n) == "COLUMNS")
    rows = []
    for entry in schema.value.args[0].elts:
        kind = source.text(entry.args[1]).replace("pa.", "").replace("()", "").replace("list_(", "list(")
        kind = kind.replace("_IMAGE", "struct(bytes, path)").replace(
            "_CROP", "struct(source, tissue_id, x, y, width, height)"
        )
        nullable = not any(k.arg == "nullable" and k.value.value is False for k in entry.keywords)
        rows.append((f"`{entry.args[0].value}`", kind + (", may be null" if nullable else ""), source.comment(entry)))
    return _table(("column", "type", "meaning"), rows)


def render_folder(source: Source) -> str:
    """The indented block of a module's docstring: the layout of a folder."""
    lines = ast.get_docstring(source.tree).splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("    "))
    end = next((i for i in range(start, len(lines)) if lines[i] and not lines[i].startswith("    ")), len(lines))
    block = "\n".join(line.removeprefix("    ") for line in lines[start:end]).rstrip()
    return f"```text\n{block}\n```"


def _recipe_table(table: str, kind: str, overrides: dict[str, str], classes: dict, absent: bool = False) -> list[str]:
    node, source = classes[kind]
    rows, nested = [], []
    for field in _fields(node):
        name, annotation = field.target.id, source.text(field.annotation)
        inner = next((k for k in re.findall(r"\w+", annotation) if k in classes and _is_dataclass(classes[k][0])), None)
        if inner:
            given = _defaults_given(field.value, source)
            nested += _recipe_table(f"{table}.{name}".strip("."), inner, given, classes, "None" in annotation)
            continue
        default = overrides.get(name) or (source.text(field.value) if field.value else "")
        rows.append((f"`{name}`", _toml_type(annotation), _toml_value(default), source.comment(field)))
    parts = [f"## {f'[{table}]' if table else 'Top level'}{' (absent by default)' if absent else ''}\n"]
    parts.append(_paragraphs(ast.get_docstring(node)))
    return parts + ([_table(("key", "type", "default", "meaning"), rows)] if rows else []) + nested


def _toml_type(annotation: str) -> str:
    words = {"int": "integer", "float": "number", "str": "text", "bool": "true or false", "Path": "path"}
    annotation = CHOICES.get(annotation, annotation).removesuffix(" | None")
    if annotation.startswith("Literal["):
        return " or ".join(f"`{choice}`" for choice in re.findall(r'"[^"]+"', annotation))
    if annotation.startswith("tuple["):
        item = annotation[6:].split(",")[0]
        return f"list of {words[item] if item in words else _toml_type(item)}"
    return words[annotation]


def _toml_value(default: str) -> str:
    if not default:
        return "required"
    value = ast.literal_eval(default)
    if value is None:
        return "none"
    return f"`{json.dumps(value)}`"


def _defaults_given(value: ast.expr | None, source: Source) -> dict[str, str]:
    """Keywords of `field(default_factory=lambda: Config(a=1))`: defaults that this use of a dataclass changes."""
    for node in ast.walk(value) if value else ():
        if isinstance(node, ast.Lambda) and isinstance(node.body, ast.Call):
            return {k.arg: source.text(k.value) for k in node.body.keywords}
    return {}


def _describe(node: ast.stmt, source: Source, name: str) -> list[str]:
    if isinstance(node, ast.FunctionDef):
        return [_code(name + _signature(node, source)), _paragraphs(ast.get_docstring(node))]
    if not isinstance(node, ast.ClassDef):
        return [_code(source.text(node))]
    parts = [_paragraphs(ast.get_docstring(node))]
    if _is_dataclass(node):
        rows = []
        for field in (f for f in _fields(node) if not f.target.id.startswith("_")):
            default = f"`{source.text(field.value)}`" if field.value else "required"
            rows.append((f"`{field.target.id}`", f"`{source.text(field.annotation)}`", default, source.comment(field)))
        parts.append(_table(("field", "type", "default", "meaning"), rows))
    for method in (n for n in node.body if isinstance(n, ast.FunctionDef)):
        if method.name == "__init__":
            parts.append(_code(name + _signature(method, source)))
        elif method.name == "__call__" or not method.name.startswith("_"):
            is_property = any(source.text(d) == "property" for d in method.decorator_list)
            parts.append(_code(f"{name}.{method.name}{'' if is_property else _signature(method, source)}"))
            parts.append(_paragraphs(ast.get_docstring(method)))
    return parts


def _signature(function: ast.FunctionDef, source: Source) -> str:
    given = function.args
    defaults = [None] * (len(given.args) - len(given.defaults)) + given.defaults
    positional = list(zip(given.args, defaults, strict=True))
    if positional and positional[0][0].arg in ("self", "cls"):
        positional = positional[1:]
    parts = [_argument(*pair, source) for pair in positional] + (["*"] if given.kwonlyargs else [])
    parts += [_argument(*pair, source) for pair in zip(given.kwonlyargs, given.kw_defaults, strict=True)]
    returned = f" -> {source.text(function.returns).strip(QUOTE)}" if function.returns else ""
    line = f"({', '.join(parts)}){returned}"
    return line if len(line) < 90 else "(\n" + "".join(f"    {part},\n" for part in parts) + f"){returned}"


def _argument(argument: ast.arg, default: ast.expr | None, source: Source) -> str:
    return source.text(argument) + ("" if default is None else f" = {source.text(default)}")


def _fields(node: ast.ClassDef) -> list[ast.AnnAssign]:
    return [statement for statement in node.body if isinstance(statement, ast.AnnAssign)]


def _code(text: str) -> str:
    return f"```python\n{text}\n```\n"


def _homes(source: Source) -> dict[str, str]:
    table = next(n for n in source.tree.body if isinstance(n, ast.Assign) and _target(n) == "_HOMES")
    return ast.literal_eval(table.value)


def _name_of(node: ast.stmt) -> str | None:
    return _target(node) if isinstance(node, ast.Assign) else getattr(node, "name", None)


def _target(node: ast.Assign) -> str | None:
    return getattr(node.targets[0], "id", None)


def _is_dataclass(node: ast.ClassDef) -> bool:
    return any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list)


def _first_sentence(text: str | None) -> str:
    """The first sentence, without its stop; a long one is cut where it begins to explain itself."""
    paragraph = (text or "").split("\n\n")[0].replace("\n", " ")
    sentence = re.split(r"(?<=[.?])\s(?=[A-Z])|:$", paragraph)[0].removesuffix(".")
    return sentence if len(sentence) <= LONGEST else re.split(r"[:;]\s", sentence)[0]


def _tree_line(name: str, depth: int, about: str) -> str:
    return f"{'  ' * depth + name:28} {about}"


def _paragraphs(text: str | None) -> str:
    """Docstring text as markdown: paragraphs stay, indented blocks become code."""
    parts = []
    for block in re.split(r"\n\s*\n", (text or "").strip()):
        indented = [line.startswith("    ") for line in block.splitlines()]
        aligned = any(re.match(r"\w[\w, ]*\s{2,}\S", line) for line in block.splitlines())
        parts.append(f"```text\n{block}\n```" if all(indented) or aligned else block)
    return "\n\n".join(parts) + "\n"


def _params(command: Callable) -> list[Param]:
    """Arguments and options of a command, from its annotated signature."""
    hints = typing.get_type_hints(command, include_extras=True)
    found = []
    for parameter in inspect.signature(command).parameters.values():
        kind, info = typing.get_args(hints[parameter.name])
        kinds = [k for k in (typing.get_args(kind) or (kind,)) if k is not type(None)]
        metavar = " ".join(METAVARS.get(k, "TEXT") for k in kinds)
        named = [d for d in (info.default, *(info.param_decls or ())) if isinstance(d, str) and d.startswith("--")]
        flag = (named or [f"--{parameter.name.replace('_', '-')}"])[0]
        is_argument = isinstance(info, typer.models.ArgumentInfo)
        spelled = parameter.name.upper() if is_argument else f"{flag} {metavar}".strip()
        if parameter.default is parameter.empty:
            default = "required"
        else:
            values = parameter.default if isinstance(parameter.default, tuple) else (parameter.default,)
            default = "" if values in ((None,), ("",)) else f"`{' '.join(map(str, values))}`"
        found.append(Param(spelled, default, " ".join(info.help.split())))
    return found


def _table(titles: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [titles, tuple("---" for _ in titles), *(tuple(cell.replace("|", "\\|") for cell in row) for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def main() -> None:
    """Write what has changed, and say so."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, default=ROOT)
    root = parser.parse_args().root
    for path, text in render_all(root).items():
        if not (root / path).exists() or (root / path).read_text(encoding="utf-8") != text:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text, encoding="utf-8")
            typer.echo(f"wrote {path}")


if __name__ == "__main__":
    main()
