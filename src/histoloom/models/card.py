"""What the card of a model says of its license."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

_MOST_BYTES = 2**20


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
