"""What was embedded in a folder and how, and where its slides are on this machine.

FOLDER/
  record.json        settings, and fingerprints of slides and encoder; only the same run continues
  paths.local.json   where slides and encoder are on this machine; not part of the record
"""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from histoloom.config import build
from histoloom.discovery.cutting import Cutting
from histoloom.discovery.embeddings import CHOSEN
from histoloom.discovery.parts import Part
from histoloom.encoders.encoder import short_name
from histoloom.encoders.small import SMALL, weights_path
from histoloom.errors import ConfigError, InputError
from histoloom.files import PATHS, RECORD, read_record, write_json
from histoloom.records import Record, fingerprint, read_json

COMMAND, FORMAT = "discover embed", 2


@dataclass(frozen=True)
class EmbedConfig:
    """How patches become vectors."""

    encoder: str = SMALL
    cutting: Cutting = field(default_factory=Cutting)
    batch_size: int = 32  # patches per call of the encoder
    readers: int = 2  # threads that read pixels while the encoder works
    precision: Literal["float16", "float32"] = "float16"  # of the stored vectors
    allow_remote_code: bool = False  # load encoders that run code from the internet

    def __post_init__(self):
        if not 1 <= self.batch_size <= 65536 or not 1 <= self.readers <= 1024:
            raise ConfigError(
                f"batch_size {self.batch_size} must be in [1, 65536], readers {self.readers} in [1, 1024]"
            )


def with_absolute_paths(config: EmbedConfig) -> EmbedConfig:
    """The same config for workers and later steps, which may run in other folders."""
    chosen, weights = config.cutting.of_chosen, weights_path(config.encoder)
    cutting = dataclasses.replace(config.cutting, of_chosen=None if chosen is None else str(Path(chosen).absolute()))
    encoder = config.encoder if weights is None or config.encoder == SMALL else str(weights.parent.absolute())
    return dataclasses.replace(config, encoder=encoder, cutting=cutting)


def embedding_record(parts: list[Part], config: EmbedConfig) -> Record:
    """The record of a run: everything that decides its bytes, without paths of this machine.

    A slide that cannot be read has no fingerprint yet; it is skipped, and the next run tries it again.
    """
    settings: dict[str, Any] = dataclasses.asdict(config) | {"encoder": short_name(config.encoder)}
    settings["cutting"]["of_chosen"] = config.cutting.of_chosen is not None
    for free in ("readers", "allow_remote_code"):  # change no byte
        del settings[free]
    inputs: dict[str, str] = {}
    for part in parts:
        try:
            inputs[part.source] = part.fingerprint()
        except InputError:
            continue
    if (weights := weights_path(config.encoder)) is not None:
        inputs["encoder"] = fingerprint(weights)
    if config.cutting.of_chosen is not None:
        inputs[CHOSEN] = fingerprint(Path(config.cutting.of_chosen) / CHOSEN, whole=False, dated=False)
    return Record(command=COMMAND, format=FORMAT, settings=settings, inputs=inputs)


def write_paths(folder: Path, source: Path, config: EmbedConfig) -> None:
    """Note where slides, encoder and chosen patches are on this machine; the paths of `config` are absolute."""
    places = {"source": str(source.absolute()), "encoder": config.encoder, "of_chosen": config.cutting.of_chosen}
    write_json(folder / PATHS, places)


def read_embedding(folder: Path | str) -> tuple[Path, EmbedConfig]:
    """The source of the embeddings in `folder`, and their config; raises InputError where there are none."""
    folder = Path(folder)
    record = read_record(folder)
    if record is None or record.get("command") != COMMAND:
        raise InputError(f"{folder}: nothing was embedded here; run `histoloom discover embed` first")
    if record.get("format") != FORMAT:
        raise InputError(f"{folder}: was embedded by another version of Histoloom; embed into a new folder")
    if not (folder / PATHS).is_file():
        raise InputError(
            f"{folder / PATHS}: is missing, so the slides cannot be found; run `histoloom discover embed` "
            "again with the same settings"
        )
    places, settings = read_json(folder / PATHS), record.get("settings")
    try:
        cutting = settings["cutting"] | {"of_chosen": places["of_chosen"]}  # pyright: ignore[reportOptionalSubscript]
        values = settings | {"encoder": places["encoder"], "cutting": cutting}  # pyright: ignore[reportOptionalOperand]
        return Path(places["source"]), build(EmbedConfig, values, f"{folder}/{RECORD}")
    except (KeyError, TypeError, ConfigError) as error:
        raise InputError(f"{folder}: its record cannot be read ({error}); embed into a new folder") from None
