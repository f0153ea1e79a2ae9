"""Models that come with the package, by name."""

from pathlib import Path

BUNDLED = ("ebhi-seg", "ebhi-seg-few-steps")
SMALL_ENCODER = Path(__file__).parent / "encoder"


def find_model(name: str) -> str:
    """The folder of a bundled model; `name` itself where it is another name, or a folder here that holds a model."""
    return str(Path(__file__).parent / name) if name in BUNDLED and not holds_model(Path(name)) else name


def holds_model(folder: Path) -> bool:
    """True where `folder` is that of a pipeline or of an autoencoder: a folder of data may have the name of a model."""
    return (folder / "model_index.json").is_file() or (folder / "config.json").is_file()
