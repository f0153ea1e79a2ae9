"""Weave a canvas: a slide, the map that it follows as labels and polygons, and a record of how it was made.

    slide.tif                    RGB, with a pyramid and its mpp
    slide/maps/slide.tif         labels, with the same pyramid
    slide/geojson/slide.geojson  the same as polygons for QuPath
    slide/tissue.toml            what the labels mean
    slide/README.md              what this is, and its license
    slide/record.json            settings, and fingerprints of model, map and crops
    slide/slide.json             fingerprint of the slide
    slide.partial/               the same while it is being made; rows/ holds what is finished

`histoloom patches slide.tif --annotations slide/maps --tissue slide/tissue.toml` cuts it.
"""

import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np

from histoloom import files
from histoloom.canvas.card import write_card
from histoloom.canvas.choices import candidates
from histoloom.canvas.ground import canvas_field
from histoloom.canvas.layout import Layout, find_regions
from histoloom.canvas.parts import TILE, Parts, level_sizes, rows_of_tiles
from histoloom.canvas.pyramid import label_rows, write_labels, write_slide
from histoloom.canvas.settings import CanvasConfig
from histoloom.canvas.strips import Strips, weave_strips
from histoloom.conditioning.inputs import Crop, content_id
from histoloom.discovery.map_files import polygon_stride, write_regions
from histoloom.distributed import ALONE, Workers
from histoloom.errors import ConfigError, OutputError
from histoloom.generation.bank import CropBank
from histoloom.generation.woven_folder import config_hash
from histoloom.models.field import Field
from histoloom.models.pipeline import HistoloomPipeline
from histoloom.progress import Progress, silent
from histoloom.records import Record, fingerprint, read_json
from histoloom.text import byte_size, counted
from histoloom.tissue import TissueTable
from histoloom.version import VERSION

FORMAT = 3  # raised when the same settings and inputs give other bytes
ROWS = "rows"  # folder of the finished rows
POLYGON_PIXELS = 2**20  # polygons of a larger map come from a coarser level: outlining 4 million px takes 0.4 GB
SLIDE = "slide.json"  # fingerprint of the slide, once it is whole


def weave_canvas(
    pipeline: HistoloomPipeline,
    layout: Layout,
    bank: CropBank,
    config: CanvasConfig,
    mpp: float,
    out: Path,
    progress: Progress = silent,
    say: Callable[[str], None] = lambda line: None,
    workers: Workers = ALONE,
) -> None:
    """Weave the canvas of `layout` at `mpp` micrometers per px into the slide `out`, and what belongs to it next to it.

    An interrupted run resumes: what is finished stays, and ends with the same bytes. `say` gets a line with what the
    canvas takes, before it begins. Several `workers` weave strips of it, with the same bytes but for the last bit in
    fp32, where they have fewer threads. Raises InputError for a layout that is narrower than a window, OutputError
    where `out` holds anything else or the disk has too little space.
    """
    folder = folder_of(out)
    regions = find_regions(layout)
    crops = candidates(bank, regions, config.seed)
    field, resolved = canvas_field(pipeline, layout, regions, crops, config, mpp)
    record = _record(pipeline, layout, crops, resolved, mpp)
    if files.is_finished(folder, record):
        if not _is_written(out, folder):
            raise OutputError(f"{out}: is not the slide that {folder} belongs to; remove that folder to weave it again")
        return
    if out.exists() and not _is_written(out, folder.with_name(f"{folder.name}{files.PARTIAL}")):
        raise OutputError(f"{out}: exists already; name another slide, or move it away")
    with files.resumable_folder(folder, record) as aside:
        parts = Parts(aside / ROWS, layout.shape)
        if not _is_written(out, aside):
            check_space(out, layout.shape)
            for note in layout.notes:
                say(note)
            if workers.alone:
                _weave_rows(field, parts, progress, say)
            else:
                strips = Strips.of(pipeline, layout, regions, crops, config, mpp, parts, workers)
                weave_strips(strips, parts, workers, progress, say)
            about = record.to_json()["settings"] | {"made_by": f"Histoloom {VERSION}", "synthetic": True}
            _write_map(aside, folder.name, layout, mpp, pipeline.table, about)
            write_card(aside / "README.md", pipeline, out.name, folder.name, layout, regions, crops, mpp)
            # The fingerprint comes before the slide: what is at `out` after a kill is known as ours, or left alone.
            with files.whole_file(out) as whole, progress("writing", rows_of_tiles(layout.shape), "rows") as bar:
                write_slide(whole, parts.level, layout.shape, mpp, about, config.ome, bar)
                files.write_json(aside / SLIDE, {"slide": fingerprint(whole, whole=False, dated=False)})
        shutil.rmtree(parts.folder, ignore_errors=True)


def _is_written(out: Path, folder: Path) -> bool:
    """Whether the slide is the one that `folder` belongs to."""
    if not (folder / SLIDE).is_file() or not out.is_file():
        return False
    return read_json(folder / SLIDE).get("slide") == fingerprint(out, whole=False, dated=False)


def _weave_rows(field: Field, parts: Parts, progress: Progress, say: Callable[[str], None]) -> None:
    """Weave the rows that are not there."""
    height, width = parts.shape
    done = parts.finished()
    first = min(done * TILE, height)
    windows = field.count(first) if first < height else 0
    rest = f"; {first} rows are finished" if first else ""
    say(
        f"{width} x {height} px, {counted(windows, 'window')} over all steps, up to {byte_size(space(parts.shape))} on "
        f"disk while it is made{rest}"
    )
    if windows:
        with progress("weaving", windows, "windows") as bar:
            parts.write(field.pixels(first, bar), done)


def folder_of(out: Path) -> Path:
    """The folder of what belongs to a slide; raises ConfigError for a name that is not that of a TIFF."""
    name = out.name.removesuffix(out.suffix)
    if out.suffix.lower() not in (".tif", ".tiff") or not name:
        raise ConfigError(f"{out}: name the slide with .tif, such as canvas.tif")
    return out.with_name(name.removesuffix(".ome"))


def check_space(out: Path, shape: tuple[int, int]) -> None:
    """Raise OutputError where the disk has less space than a canvas may take."""
    place = next(parent for parent in out.absolute().parents if parent.exists())
    free, needed = shutil.disk_usage(place).free, space(shape)
    if free < needed:
        raise OutputError(
            f"{out}: needs up to {byte_size(needed)} while it is made, and {place} has {byte_size(free)}; free some "
            "space, or name another disk"
        )


def space(shape: tuple[int, int]) -> int:
    """Bytes that a canvas takes at most while it is made: its rows, and slide and labels as if nothing compressed."""
    pixels = shape[0] * shape[1]
    return 3 * pixels + (3 + 1) * pixels * 4 // 3 + 2**20


def _record(
    pipeline: HistoloomPipeline, layout: Layout, crops: dict[int, list[Crop]], config: CanvasConfig, mpp: float
) -> Record:
    inputs = {"model": pipeline.fingerprint, "model_config": config_hash(pipeline), "map": fingerprint(layout.path)}
    inputs |= {
        f"crops of {tissue}": " ".join(content_id(crop.pixels) for crop in mine) for tissue, mine in crops.items()
    }
    settings = asdict(config) | {"mpp": mpp, "height": layout.shape[0], "width": layout.shape[1]}
    settings["computed_in"] = pipeline.computed_in
    settings |= {"rest": layout.rest} if layout.rest else {}
    return Record(command="canvas", format=FORMAT, settings=settings, inputs=inputs)


def _write_map(aside: Path, name: str, layout: Layout, mpp: float, table: TissueTable, about: dict) -> None:
    """Write the labels of a canvas, and polygons of them, of a coarser level where the canvas is large."""
    with files.whole_file(aside / "maps" / f"{name}.tif") as whole:
        write_labels(whole, layout, mpp, table, about)
    files.write_text(aside / "tissue.toml", table.to_toml())
    stride = polygon_stride(layout.shape, POLYGON_PIXELS)
    level = min((stride - 1).bit_length(), len(level_sizes(layout.shape)) - 1)
    semantic_map = np.concatenate(list(label_rows(layout, level)))
    rows, columns = (-(-e // (1 << level)) - have for e, have in zip(layout.shape, semantic_map.shape, strict=True))
    semantic_map = np.pad(semantic_map, ((0, rows), (0, columns)), mode="edge")  # a level drops a row that it halves
    scale = {"mpp": mpp, "slide_size": [layout.shape[1], layout.shape[0]], "origin": [0.0, 0.0]}
    write_regions(aside / "geojson" / f"{name}.geojson", semantic_map, 1 << level, table, scale)
