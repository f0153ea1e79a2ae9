"""A griffe extension: the comment behind a dataclass field is its documentation."""

import ast
from typing import Any

import griffe


class FieldComments(griffe.Extension):
    """Reads `name: type = default  # comment`."""

    def on_attribute_instance(self, *, node: Any, attr: griffe.Attribute, **_: Any) -> None:
        """Give `attr` the comment on its last line as its docstring, unless it has one."""
        if attr.docstring is None and isinstance(node, ast.AnnAssign) and isinstance(attr.parent, griffe.Class):
            line = attr.lines_collection[attr.filepath][(node.end_lineno or 1) - 1]
            comment = line.partition("  # ")[2].strip()
            if comment:
                attr.docstring = griffe.Docstring(comment, lineno=node.end_lineno, parent=attr)
