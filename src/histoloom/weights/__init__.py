"""Models that come with the package, by name."""

from pathlib import Path

BUNDLED = ("ebhi-seg",)
SMALL_ENCODER = Path(__file__).parent / "encoder"


def find_model(name: str) -> str:
    """The folder of a bundled model, or `name` itself where it is a folder or a hub name."""
    return str(Path(__file__).parent / name) if name in BUNDLED and not Path(name).exists() else name
