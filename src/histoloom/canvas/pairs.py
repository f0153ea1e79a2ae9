"""Pairs of patches, before and after an edit of their map, with everything else equal.

Both are woven from one seed and the same crops. Where the map did not change, the second is steered to the first at
each step and keeps its pixels, except in a rim around the edit.

    OUT/before/00000.png after/00000.png            patches
    OUT/maps-before/00000.png maps-after/00000.png  their maps
    OUT/edited/00000.png                            255 where the maps differ, 128 in the rim
    OUT/pairs.json                                  a row per pair: seed, map, mean change of pixels in each part
    OUT/README.md                                   what this is, and the license that it inherits
    OUT/record.json                                 settings, and fingerprints of model, maps and crops
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from scipy.ndimage import distance_transform_edt

from histoloom import files
from histoloom.canvas.edits import edited_map
from histoloom.canvas.inpaint import inpaint, save_map
from histoloom.canvas.settings import Edit
from histoloom.conditioning.inputs import Crop, content_id
from histoloom.errors import InputError
from histoloom.generation.bank import CropBank
from histoloom.generation.woven_folder import config_hash
from histoloom.models.card import card_template, license_of
from histoloom.models.field import Field, MapGround
from histoloom.models.pipeline import HistoloomPipeline
from histoloom.models.sampling import Sampling
from histoloom.pictures import write_picture
from histoloom.progress import Progress, silent
from histoloom.records import Record, read_json
from histoloom.text import counted
from histoloom.version import VERSION

FORMAT = 2  # raised when the same settings and inputs give other bytes
RIM = 16  # px around an edit that may change, too
_CARD = card_template("""
Synthetic H&E patches before and after an edit of their map, woven by Histoloom {{ version }} with model
`{{ model }}`. They show no patient. They may resemble the crops that they were woven from; nobody has searched them
for copies.

The edit: {{ edit }}.

`before` and `after` hold the patches, `maps-before` and `maps-after` their maps. In `edited`, 255 is where the maps
differ and 128 the rim around it; all other pixels are the same in both. `pairs.json` has a row for each pair, and
`record.json` holds all settings and the fingerprints of model, maps and crops.

## License

Inherited from the model: {{ license.sentence }}
""")
NamedMap = tuple[str, UInt8[np.ndarray, "h w"]]


@dataclass(frozen=True, eq=False)
class Pair:
    """Two patches, their maps, and the parts of the picture: 255 edited, 128 rim, 0 the rest."""

    before: UInt8[np.ndarray, "h w 3"]
    after: UInt8[np.ndarray, "h w 3"]
    map_before: UInt8[np.ndarray, "h w"]
    map_after: UInt8[np.ndarray, "h w"]
    parts: UInt8[np.ndarray, "h w"]

    def change(self) -> dict[str, float]:
        """Mean absolute change of pixels, in levels of 255, where the map was edited, in the rim, and elsewhere."""
        levels = np.abs(self.after.astype(np.int16) - self.before).mean(2)
        parts = {"edited": 255, "rim": 128, "rest": 0}
        return {n: float(levels[self.parts == v].mean()) if (self.parts == v).any() else 0.0 for n, v in parts.items()}


def weave_pair(
    pipeline: HistoloomPipeline,
    semantic_map: UInt8[np.ndarray, "h w"],
    edit: Edit,
    crops: Sequence[Crop],
    sampling: Sampling,
    seed: int,
    rim: int = RIM,
) -> Pair | None:
    """The patch of a map and that of the edited map, from one seed; None where the edit changes nothing.

    Crops of types that a map does not show are left out for it.
    """
    after_map = edited_map(edit, semantic_map, pipeline.table)
    edited = after_map != semantic_map
    if not edited.any():
        return None
    redrawn = np.asarray(distance_transform_edt(~edited)) <= rim
    scheduler, resolved = pipeline.resolve(sampling)
    parts = pipeline.denoiser, pipeline.autoencoder, scheduler, resolved
    before = np.concatenate(list(Field(*parts, MapGround(semantic_map, list(crops)), seed).pixels()))
    after = inpaint(pipeline, before, after_map, redrawn, list(crops), resolved, seed, context=max(edited.shape))
    shown = np.where(edited, 255, np.where(redrawn, 128, 0)).astype(np.uint8)
    return Pair(before, after, semantic_map, after_map, shown)


def weave_pairs(
    pipeline: HistoloomPipeline,
    maps: Sequence[NamedMap],
    bank: CropBank,
    edit: Edit,
    sampling: Sampling,
    seed: int,
    out: Path,
    progress: Progress = silent,
) -> list[dict]:
    """Weave a pair per map into the folder `out`, and return the rows of `pairs.json`; maps that the edit does not
    change have none.

    Pair i has seed + i. Raises InputError where the edit changes no map.
    """
    _, resolved = pipeline.resolve(sampling)
    drawn = [_crops(bank, semantic_map, edit, pipeline, seed + number) for number, (_, semantic_map) in enumerate(maps)]
    inputs = {"model": pipeline.fingerprint, "model_config": config_hash(pipeline)}
    # By number: the place of a map decides its seed, and two may be alike.
    for number, ((name, semantic_map), mine) in enumerate(zip(maps, drawn, strict=True)):
        inputs |= {f"map {number}": f"{name} {content_id(semantic_map)}"}
        inputs |= {f"crops {number}": " ".join(f"{crop.tissue}:{content_id(crop.pixels)}" for crop in mine)}
    settings = asdict(resolved) | {"seed": seed, "edit": asdict(edit), "rim": RIM, "computed_in": pipeline.computed_in}
    record = Record(command="pairs", format=FORMAT, settings=settings, inputs=inputs)
    if files.is_finished(out, record):
        return read_json(out / "pairs.json")["pairs"]
    rows: list[dict] = []
    with files.whole_folder(out) as aside, progress("weaving", len(maps), "pairs") as bar:
        for number, ((name, semantic_map), crops) in enumerate(zip(maps, drawn, strict=True)):
            pair = weave_pair(pipeline, semantic_map, edit, crops, resolved, seed + number)
            if pair is not None:
                _save(pair, pipeline, aside, f"{len(rows):05d}.png")
                rows.append({"map": name, "seed": seed + number, "change": pair.change()})
            bar.advance()
        if not rows:
            raise InputError(
                f"{edit.rule} of {edit.tissue!r} changes none of {counted(len(maps), 'map')}; name a type in them"
            )
        files.write_json(aside / "pairs.json", {"pairs": rows})
        files.write_text(aside / "tissue.toml", pipeline.table.to_toml())
        files.write_text(aside / "README.md", _card(pipeline, len(rows), edit))
        files.write_record(aside, record)
    return rows


def _crops(
    bank: CropBank, semantic_map: UInt8[np.ndarray, "h w"], edit: Edit, pipeline: HistoloomPipeline, seed: int
) -> list[Crop]:
    """Crops for the types of both maps."""
    if not bank.sets:
        return []
    both = np.stack([semantic_map, edited_map(edit, semantic_map, pipeline.table)]).reshape(-1, semantic_map.shape[1])
    drawn = bank.draw(both, np.random.default_rng(seed))
    return [replace(crop, source=content_id(crop.pixels)) for crop in drawn]


def _card(pipeline: HistoloomPipeline, count: int, edit: Edit) -> str:
    return _CARD.render(
        name=f"{counted(count, 'pair')} of woven patches",
        edit=_words(edit),
        model=pipeline.fingerprint,
        license=license_of(pipeline),
        version=VERSION,
    )


def _words(edit: Edit) -> str:
    how = "" if edit.rule == "change" else f", by {edit.by} px"
    return f"{edit.rule} {edit.tissue}" + (f" to {edit.to}" if edit.to else "") + how


def _save(pair: Pair, pipeline: HistoloomPipeline, folder: Path, name: str) -> None:
    for kind in ("before", "after", "maps-before", "maps-after", "edited"):
        (folder / kind).mkdir(exist_ok=True)
    for kind, pixels in (("before", pair.before), ("after", pair.after), ("edited", pair.parts)):
        write_picture(folder / kind / name, Image.fromarray(pixels))
    for kind, semantic_map in (("maps-before", pair.map_before), ("maps-after", pair.map_after)):
        save_map(semantic_map, pipeline.table, folder / kind / name)
