"""What the card of a model says of its license, and templates of cards that pass it on."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, Template

_MOST_BYTES = 2**20
_ENVIRONMENT = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
_ENVIRONMENT.filters["yaml"] = json.dumps  # a JSON text is a YAML scalar


def card_template(text: str) -> Template:
    """The template of a card; foreign text in it is escaped, in the header by the filter `yaml`."""
    return _ENVIRONMENT.from_string(text)


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """License and attribution, from the header of `README.md` in the folder of a model."""

    license: str = "unknown"  # identifier of the hub, such as cc-by-4.0
    attribution: str = ""  # whom to name; empty where the card does not say

    @classmethod
    def read(cls, folder: Path | str) -> "ModelCard":
        """The card of the model in `folder`; what cannot be read is unknown."""
        header = _header(Path(folder) / "README.md")
        texts = {name: header.get(name) for name in ("license", "attribution")}
        return cls(**{name: " ".join(value.split()) for name, value in texts.items() if isinstance(value, str)})

    @classmethod
    def of(cls, pipeline: Any) -> "ModelCard":
        """The card of an open model."""
        return cls.read(getattr(pipeline, "name_or_path", None) or pipeline.config.get("_name_or_path") or "")


def _header(path: Path) -> dict:
    import yaml  # here: weaving from Python needs no card

    try:
        if path.stat().st_size > _MOST_BYTES:
            return {}
        text = path.read_text(encoding="utf-8")
        found = yaml.safe_load(text.split("---")[1]) if text.startswith("---") else {}
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
