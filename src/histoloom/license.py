"""The license of data and models, and whom to name: both are passed on to whatever is made from them."""

from dataclasses import dataclass
from pathlib import Path

from histoloom.disk import read_input
from histoloom.text import tidy

_MOST_BYTES = 2**20


@dataclass(frozen=True)
class License:
    """Under which license something may be used, and whom to name."""

    name: str = "unknown"  # identifier of the hub, such as cc-by-4.0
    attribution: str = ""  # whom to name; empty where nobody says

    def __post_init__(self):
        object.__setattr__(self, "name", tidy(self.name) or "unknown")
        object.__setattr__(self, "attribution", tidy(self.attribution))

    @property
    def sentence(self) -> str:
        """The license and whom to name, for a card."""
        return f"{self.name}." + (f" Attribution: {self.attribution}" if self.attribution else "")

    @classmethod
    def of_card(cls, folder: Path | str) -> "License":
        """From the header of `README.md` in `folder`; what cannot be read is unknown."""
        return cls.of(_header(Path(folder) / "README.md"))

    @classmethod
    def of(cls, said: dict) -> "License":
        """From the keys `license` and `attribution` of a card or of the description of a dataset."""
        return cls(*(value if isinstance(value := said.get(key), str) else "" for key in ("license", "attribution")))

    def said(self) -> dict[str, str]:
        """What the description of a dataset says: `of` reads it."""
        return {"license": self.name, "attribution": self.attribution}

    def filled(self, other: "License") -> "License":
        """With what `other` says where this says nothing."""
        return License(other.name if self.name == UNKNOWN.name else self.name, self.attribution or other.attribution)

    def joined(self, *others: "License") -> "License":
        """The license of something that is made from all of these."""
        every = (self, *others)
        names = " and ".join(dict.fromkeys(each.name for each in every))
        return License(names, "; ".join(dict.fromkeys(each.attribution for each in every if each.attribution)))


UNKNOWN = License()


def _header(path: Path) -> dict:
    import yaml  # here: weaving from Python needs no card

    try:
        if path.stat().st_size > _MOST_BYTES:
            return {}
        text = read_input(path).decode()
        found = yaml.safe_load(text.split("---")[1]) if text.startswith("---") else {}
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
