"""What a model card claims, measured on real patches that the model has not seen: stain, map, copying, autoencoder.

    python benchmarks/model_quality.py ebhi-seg runs/ebhi-seg/dataset --segmenter runs/ebhi-seg/judge --out quality

Weaves patches for the maps of the validation split, each with crops from *other* patches of its case, and writes to
OUT: `quality.json` (every figure with its n and seed), `quality.md` (the block for the model card), `woven/` (the
patches, with provenance; an interrupted run goes on) and `contact-sheet.png`. OUT shows real crops: do not publish it.
The judge of the map is trained on the train split first, where the folder of `--segmenter` holds none.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from quality_card import markdown
from quality_measures import measure_autoencoder, measure_copying, measure_map, measure_stain, open_judge
from quality_task import make_task, weave_task, with_lumens

from histoloom.generation.contact_sheet import SheetRow, contact_sheet
from histoloom.generation.patches import WeaveConfig, copy_limit_of
from histoloom.generation.woven_patch import FORMAT
from histoloom.generation.woven_reader import read_woven
from histoloom.models.pipeline import HistoloomPipeline
from histoloom.patches.store import load_patches, read_table
from histoloom.records import Record
from histoloom.weights import find_model

SHEET = 64  # patches on the contact sheet


def measure(arguments: argparse.Namespace) -> None:
    """Weave, measure, write."""
    out: Path = arguments.out
    pipeline = HistoloomPipeline.load(find_model(arguments.model))
    table, patches = read_table(arguments.dataset), load_patches(arguments.dataset, arguments.split)
    task = make_task(patches, arguments.count, arguments.seed, arguments.per_type)
    names = ("steps", "sampler", "map_guidance", "crop_guidance", "seed", "copy_limit")
    asked = {name: getattr(arguments, name) for name in names}
    config = WeaveConfig(**asked, guidance_interval=tuple(arguments.guidance_interval))
    settings = asdict(config) | {"copy_limit": copy_limit_of(pipeline, config)}
    record = Record(
        command="model_quality",
        format=FORMAT,
        settings=settings | {"per_type": arguments.per_type, "count": arguments.count, "lumens": arguments.lumens},
        inputs={"model": pipeline.fingerprint, "patches": patches.fingerprint()},
    )
    shown_to = with_lumens(task, pipeline.table) if arguments.lumens else task
    woven = weave_task(pipeline, shown_to, config, record, out / "woven")
    rows = read_woven(out / "woven").rows
    first = rows[0]
    result = {
        "run": {key: first[key] for key in ("model_hash", "conditioning", "steps", "version")}
        | {key: settings[key] for key in ("map_guidance", "crop_guidance", "guidance_interval", "seed", "copy_limit")}
        | {
            "sampler": first["scheduler"],
            "split": arguments.split,
            "patches": len(task.orders),
            "patches_in_split": len(patches),
            "cases": len(set(task.cases)),
            "crops": len(task.pairs()),
            "patches_with_crops": sum(bool(order.crops) for order in task.orders),
            "crops_per_type": arguments.per_type,
            "woven_again": sum(row["tries"] > 1 for row in rows),
            "still_alike": sum((row["copy_score"] or 0) > (row["copy_limit"] or 1) for row in rows),
        },
        "stain": {name: asdict(value) for name, value in measure_stain(task, woven).items()},
        "map": measure_map(
            task, woven, open_judge(arguments.segmenter, arguments.dataset, table), table, arguments.seed
        ),
        "copying": {
            name: asdict(value) for name, value in measure_copying(task, woven, arguments.pairs, arguments.seed).items()
        },
        "autoencoder": measure_autoencoder(pipeline, patches),
    }
    (out / "quality.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    (out / "quality.md").write_text(markdown(result), encoding="utf-8")
    rows = [
        SheetRow(order.semantic_map, [(c.tissue, c.pixels) for c in order.crops], image)
        for order, image in zip(task.orders[:SHEET], woven, strict=False)
    ]
    contact_sheet(rows, table, columns=4, title=f"{arguments.split}, model {first['model_hash']}").save(
        out / "contact-sheet.png"
    )
    print(markdown(result))


def main() -> None:
    """Read the options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="folder of a model, or the bundled ebhi-seg")
    parser.add_argument("dataset", type=Path, help="patch dataset with the splits train and val")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--segmenter", type=Path, required=True, help="folder of the judge; trained where it is empty")
    parser.add_argument("--split", default="val")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--pairs", type=int, default=400, help="unrelated pairs for the copy threshold, 100 or more")
    parser.add_argument("--per-type", type=int, default=1, help="crops of a type, at most")
    parser.add_argument("--lumens", action="store_true", help="outline lumens in the maps that the model sees")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--copy-limit", type=float, help="likeness above which a patch is woven again; 1: none")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--sampler")
    parser.add_argument("--map-guidance", type=float, default=WeaveConfig.map_guidance)
    parser.add_argument("--crop-guidance", type=float, default=WeaveConfig.crop_guidance)
    parser.add_argument("--guidance-interval", type=float, nargs=2, default=WeaveConfig.guidance_interval)
    measure(parser.parse_args())


if __name__ == "__main__":
    main()
