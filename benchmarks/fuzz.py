"""Feed damaged, foreign and hostile files to every reader, and count what is not one clear line.

    python benchmarks/fuzz.py --inputs 2000 --seed 0 --out fuzz.json

Input n is a function of (seed, n): a valid file of some kind, damaged in some way, read in a process of its own. A good
outcome is a result or a HistoloomError of one line. Bad outcomes are a traceback, a hang (60 s), more than 4 GB, a
process that a signal killed, and a file that must be refused but was accepted.
"""

import argparse
import json
import os
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

SECONDS, GIGABYTES = 60, 4
TEXT = {".json", ".toml", ".csv", ".geojson", ".xml"}
HOSTILE = [
    None, True, [], {}, "", "../../../etc/passwd", "/etc/passwd", "a\nb\x1b[31m", "=cmd", "x" * 10**6, -1, 0, 255, 256,
    10**18, -(10**18), 1e308, float("nan"), float("inf"), "nan", [[[[]]]], {"a": {"b": {}}},
]  # fmt: skip


@dataclass(frozen=True)
class Kind:
    """A reader and the file of a valid folder that is damaged before it reads."""

    name: str
    file: str  # relative to the folder, may hold *
    read: Callable[[Path], object]


@dataclass(frozen=True)
class Outcome:
    """What became of an input: `kind` is accepted, refused, or the name of a fault."""

    kind: str
    line: str
    seconds: float
    megabytes: float

    @property
    def is_bad(self) -> bool:
        """True for anything but a result or a refusal by one line."""
        return self.kind not in ("accepted", "refused")


def write_valid(folder: Path) -> None:
    """One valid file of every kind, small, written by the project itself where it has a writer."""
    import pyarrow as pa
    import tifffile
    import torch

    from histoloom.conditioning.inputs import Crop
    from histoloom.discovery.embeddings import EMBEDDINGS, embedding_schema, open_writer
    from histoloom.evaluation.segmenter import SegmenterConfig, save_segmenter, train_segmenter
    from histoloom.generation.bank import CropBank, save_bank
    from histoloom.models.autoencoder import AutoencoderConfig, build_autoencoder
    from histoloom.models.denoiser import Denoiser
    from histoloom.models.pipeline import HistoloomPipeline
    from histoloom.models.schedulers import make_sampler
    from histoloom.patches.folder import FolderImport, find_pictures
    from histoloom.patches.importer import import_pictures
    from histoloom.tissue import TissueTable

    rng = np.random.default_rng(0)
    table = TissueTable.from_names(["stroma", "gland", "tumor"])
    (folder / "tissue.toml").write_text(table.to_toml())
    for name, shape in (("images", (64, 64, 3)), ("maps", (64, 64))):
        for number in range(4):
            path = folder / "pictures" / name / f"p{number}" / "a.png"
            path.parent.mkdir(parents=True)
            Image.fromarray(rng.integers(0, 255 if len(shape) > 2 else 3, shape, dtype=np.uint8)).save(path)
    pairs = "".join(f"images/p{n}/a.png,maps/p{n}/a.png,p{n},{'val' if n == 3 else 'train'}\n" for n in range(4))
    (folder / "pictures" / "manifest.csv").write_text("image,map,case_id,split\n" + pairs)
    config = FolderImport()
    pictures = find_pictures(folder / "pictures" / "manifest.csv", None, config)
    import_pictures(pictures, table, config, folder / "dataset")
    ring = [[8, 8], [40, 8], [40, 40], [8, 40], [8, 8]]
    feature = {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {"objectType": "annotation", "classification": {"name": "gland", "color": [1, 2, 3]}},
    }
    (folder / "a.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": [feature] * 3}))
    points = "".join(f'<Coordinate Order="{i}" X="{x}" Y="{y}"/>' for i, (x, y) in enumerate(ring))
    (folder / "a.xml").write_text(
        '<?xml version="1.0"?><ASAP_Annotations><Annotations><Annotation Name="1" Type="Polygon" PartOfGroup="gland">'
        f"<Coordinates>{points}</Coordinates></Annotation></Annotations><AnnotationGroups/></ASAP_Annotations>"
    )
    pixels = rng.integers(90, 240, (256, 256, 3), dtype=np.uint8)
    tifffile.imwrite(
        folder / "slide.tif", pixels, tile=(128, 128), photometric="rgb", resolution=(2e4, 2e4), resolutionunit=3
    )
    tifffile.imwrite(folder / "labels.tif", (pixels[..., 0] % 3).astype(np.uint8), tile=(128, 128))
    torch.manual_seed(0)
    shape = AutoencoderConfig(
        latent_channels=4, channels=(8, 8, 16), encoder_blocks=(1, 1, 1), decoder_blocks=(1, 1, 1)
    )
    small = {"channels": (32, 64), "blocks": (1, 1), "token_channels": 32, "vector_channels": 8}
    statistics = {"latent_mean": [0.0, 0.1, -0.1, 0.2], "latent_std": [1.0, 0.9, 1.1, 0.8]}
    denoiser = Denoiser(num_types=3, latent_channels=4, condition_channels=16, **small, **statistics)
    scheduler, _ = make_sampler("flow")
    HistoloomPipeline(build_autoencoder(shape), denoiser, scheduler, table.to_rows()).save_pretrained(
        str(folder / "model")
    )
    save_bank(CropBank({"stain-00": [Crop(pixels[:32, :32], 0), Crop(pixels[32:64, :32], 1)]}), table, folder / "bank")
    tiny = SegmenterConfig(channels=(4, 8), size=32, steps=1, batch_size=2)
    save_segmenter(
        train_segmenter(pixels[None, :64, :64], pixels[None, :64, :64, 0] % 3, 3, tiny), folder / "segmenter"
    )
    (folder / "embedded" / EMBEDDINGS).mkdir(parents=True)
    columns = embedding_schema("colors", "0" * 16, 4, "float32")
    vectors = pa.FixedSizeListArray.from_arrays(rng.standard_normal(32, dtype=np.float32), 4)
    rows = [["s.svs"] * 8, list(range(8)), [0] * 8, [64] * 8, [0.5] * 8, ["case"] * 8, vectors]
    with open_writer(folder / "embedded" / EMBEDDINGS / "a.parquet", columns) as writer:
        writer.write_table(pa.table(rows, schema=columns))
    (folder / "levels.toml").write_text("[[level]]\ntypes = 1\nof = [0, 0]\n[[level]]\ntypes = 2\nof = [0, 1]\n")
    (folder / "recipe.toml").write_text(
        '[data]\nsource = "pictures"\nmaps = "maps"\ntissue = "tissue.toml"\n[autoencoder.loop]\nsteps = 3\n'
        "learning_rate = 1e-3\n[denoiser]\nwindow = 64\nviews = 2\nchannels = [32, 64]\nblocks = [1, 1]\n"
    )
    command = [sys.executable, "-m", "histoloom", "generate", "model", "--layouts", "2", "--size", "64", "--steps", "1"]
    subprocess.run([*command, "--out", "woven"], cwd=folder, check=True, capture_output=True)


def kinds() -> list[Kind]:
    """Every reader of a file that may come from elsewhere."""
    from histoloom.discovery.embeddings import open_table
    from histoloom.discovery.levels import read_levels
    from histoloom.evaluation.segmenter import load_segmenter
    from histoloom.evaluation.sources import load_images
    from histoloom.experiments.recipe import read_recipe
    from histoloom.generation.bank import load_bank
    from histoloom.generation.export import read_provenance, read_woven
    from histoloom.models.pipeline import HistoloomPipeline
    from histoloom.patches.dataset import read_description
    from histoloom.patches.folder import FolderImport, find_pictures, patch_rows
    from histoloom.patches.store import load_patches
    from histoloom.slides.annotations import read_annotations
    from histoloom.slides.reader import open_slide
    from histoloom.slides.tissue import find_tissue
    from histoloom.tissue import TissueTable

    table = TissueTable.from_names(["stroma", "gland", "tumor"])

    def pictures(folder: Path) -> object:
        found = find_pictures(folder / "pictures" / "manifest.csv", None, FolderImport())
        return list(patch_rows(found, table, FolderImport()))

    def annotation(name: str) -> Callable[[Path], object]:
        return lambda folder: read_annotations(folder / name, table, (256, 256), 0.5)

    def slide(folder: Path) -> object:
        with open_slide(folder / "slide.tif", 0.5) as opened:
            return find_tissue(opened), opened.read(0, 0, 64, opened.mpp)

    def model(folder: Path) -> object:
        return HistoloomPipeline.load(folder / "model")

    return [
        Kind("tissue table", "tissue.toml", lambda f: TissueTable.load(f / "tissue.toml")),
        Kind("recipe", "recipe.toml", lambda f: read_recipe(f / "recipe.toml")),
        Kind("levels", "levels.toml", lambda f: read_levels(f / "levels.toml")),
        Kind("manifest", "pictures/manifest.csv", pictures),
        Kind("image", "pictures/images/p1/a.png", pictures),
        Kind("map", "pictures/maps/p2/a.png", pictures),
        Kind("shard", "dataset/data/train-00000.parquet", lambda f: load_patches(f / "dataset", "train")),
        Kind("dataset description", "dataset/dataset.json", lambda f: read_description(f / "dataset")),
        Kind("GeoJSON", "a.geojson", annotation("a.geojson")),
        Kind("ASAP", "a.xml", annotation("a.xml")),
        Kind("label TIFF", "labels.tif", annotation("labels.tif")),
        Kind("slide", "slide.tif", slide),
        Kind("model index", "model/model_index.json", model),
        Kind("denoiser config", "model/denoiser/config.json", model),
        Kind("autoencoder config", "model/autoencoder/config.json", model),
        Kind("scheduler config", "model/scheduler/scheduler_config.json", model),
        Kind("denoiser weights", "model/denoiser/*.safetensors", model),
        Kind("bank", "bank/stain-00/gland/*.png", lambda f: load_bank(f / "bank", table)),
        Kind("woven index", "woven/index.parquet", lambda f: read_woven(f / "woven")),
        Kind("woven image", "woven/images/00001.png", lambda f: (read_woven(f / "woven"), load_images(f / "woven"))),
        Kind("provenance", "woven/images/00000.png", lambda f: read_provenance(f / "woven/images/00000.png")),
        Kind("segmenter", "segmenter/segmenter.safetensors", lambda f: load_segmenter(f / "segmenter")),
        Kind("embeddings", "embedded/embeddings/a.parquet", lambda f: list(open_table(f / "embedded").batches())),
    ]


def damage(data: bytes, suffix: str, rng: np.random.Generator, others: list[bytes]) -> tuple[bytes, str, bool]:
    """The damaged bytes, what was done, and whether every reader must refuse them."""
    container = suffix in (".parquet", ".safetensors", ".png", ".json", ".tif")
    ways = ["truncate", "empty", "noise", "flip", "insert", "other"] + (
        ["replace", "deep", "encode"] if suffix in TEXT else []
    )
    way = ways[int(rng.integers(len(ways)))]
    if way == "truncate":
        cut = int(rng.integers(1, max(len(data), 2)))
        return data[:cut], f"cut at {cut}", suffix in (".parquet", ".safetensors")
    if way == "empty":
        return b"", way, container
    if way == "noise":
        return rng.bytes(int(rng.integers(1, 4096))), way, container
    if way == "other":
        return others[int(rng.integers(len(others)))], way, False
    if way in ("flip", "insert"):
        changed = bytearray(data)
        for _ in range(int(rng.integers(1, 20))):
            at = int(rng.integers(len(changed)))
            if way == "flip":
                changed[at] ^= int(rng.integers(1, 256))
            else:
                changed[at:at] = rng.bytes(int(rng.integers(1, 30)))
        return bytes(changed), way, False
    if way == "deep":
        return (b"[" if suffix != ".xml" else b"<a>") * 200_000, way, suffix != ".csv"
    if way == "encode":
        encoding = ["utf-16", "utf-8-sig", "latin-1"][int(rng.integers(3))]
        return (
            data.decode("utf-8", "replace").replace("gland", "drüse").encode(encoding, "replace"),
            f"{way} {encoding}",
            False,
        )
    return replace_value(data, suffix, rng), way, False


def replace_value(data: bytes, suffix: str, rng: np.random.Generator) -> bytes:
    """A value of a text file replaced by a hostile one."""
    value = HOSTILE[int(rng.integers(len(HOSTILE)))]
    if suffix in (".json", ".geojson"):
        tree = json.loads(data)
        places: list[tuple] = []

        def walk(node: object) -> None:
            items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
            for key, below in items:
                places.append((node, key))
                walk(below)

        walk(tree)
        node, key = places[int(rng.integers(len(places)))]
        node[key] = value
        return json.dumps(tree).encode()
    lines = data.decode().split("\n")
    at = int(rng.integers(len(lines)))
    text = json.dumps(value) if suffix == ".toml" else str(value)
    if "=" in lines[at] and suffix == ".toml":
        lines[at] = lines[at].split("=")[0] + "= " + text.replace("NaN", "nan").replace("Infinity", "inf")
    elif "," in lines[at]:
        cells = lines[at].split(",")
        cells[int(rng.integers(len(cells)))] = text
        lines[at] = ",".join(cells)
    elif '"' in lines[at]:
        parts = lines[at].split('"')
        parts[int(rng.integers(len(parts)))] = text
        lines[at] = '"'.join(parts)
    else:
        lines.insert(at, lines[at])
    return "\n".join(lines).encode("utf-8", "replace")


def attempt(read: Callable[[Path], object], folder: Path, must_refuse: bool) -> Outcome:
    """Read in a forked process, within the limits."""
    reading, writing = os.pipe()
    started, child = time.monotonic(), os.fork()
    if child == 0:
        os.close(reading)
        os.write(writing, json.dumps(_in_child(read, folder, must_refuse)).encode()[:4096])
        os._exit(0)
    os.close(writing)
    ready, _, _ = select.select([reading], [], [], SECONDS)
    answer = os.read(reading, 4096) if ready else b""
    os.close(reading)
    if not ready:
        os.kill(child, signal.SIGKILL)
    _, status, used = os.wait4(child, 0)
    seconds, megabytes = time.monotonic() - started, used.ru_maxrss / 1024
    if not ready:
        return Outcome("hang", "", seconds, megabytes)
    if not answer:
        return Outcome(
            "killed", f"by signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else "no answer", seconds, megabytes
        )
    kind, line = json.loads(answer)
    return Outcome(kind, line, seconds, megabytes)


def _in_child(read: Callable[[Path], object], folder: Path, must_refuse: bool) -> tuple[str, str]:
    import traceback

    from histoloom.errors import HistoloomError

    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    own = next(
        int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmData")
    )
    resource.setrlimit(resource.RLIMIT_DATA, (own * 1024 + GIGABYTES * 2**30,) * 2)
    try:
        read(folder)
    except HistoloomError as error:
        line = str(error)
        if len(line) > 2000:
            return "long line", f"{len(line)} characters: {line[:200]}"
        return "refused", line[:300]
    except MemoryError:
        return "memory", f"more than {GIGABYTES} GB"
    except BaseException as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        return "traceback", f"{type(error).__name__}: {str(error)[:150]} ({Path(where.filename).name}:{where.lineno})"
    return ("accepted wrongly", "must be refused") if must_refuse else ("accepted", "")


def campaign(inputs: range, seed: int, work: Path) -> list[dict]:
    """Run the inputs with these numbers; returns a row for each."""
    valid = work / "valid"
    valid.mkdir()
    write_valid(valid)
    found = kinds()
    files = {kind.name: next(valid.glob(kind.file)) for kind in found}
    for kind in found:
        outcome = attempt(kind.read, valid, False)
        if outcome.kind != "accepted":
            raise SystemExit(f"{kind.name}: the valid file is not accepted ({outcome})")
    others, rows = [path.read_bytes() for path in files.values()], []
    for number in inputs:
        rng = np.random.default_rng((seed, number))
        kind = found[int(rng.integers(len(found)))]
        path = files[kind.name]
        whole = path.read_bytes()
        data, way, must_refuse = damage(whole, path.suffix, rng, others)
        path.write_bytes(data)
        try:
            outcome = attempt(kind.read, valid, must_refuse and data != whole)
        finally:
            path.write_bytes(whole)
        rows.append({"number": number, "kind": kind.name, "damage": way, "outcome": outcome.kind, "line": outcome.line,
                     "seconds": round(outcome.seconds, 2), "megabytes": round(outcome.megabytes)})  # fmt: skip
        if outcome.is_bad:
            print(rows[-1], file=sys.stderr, flush=True)
    return rows


def main() -> None:
    """Run a campaign and print the table of outcomes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=2000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    work = Path(tempfile.mkdtemp())
    try:
        rows = campaign(range(options.first, options.first + options.inputs), options.seed, work)
    finally:
        shutil.rmtree(work)
    for name, count in Counter(row["outcome"] for row in rows).most_common():
        print(f"{name:18} {count}")
    print(f"slowest {max(row['seconds'] for row in rows)} s, largest {max(row['megabytes'] for row in rows)} MB")
    if options.out:
        options.out.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
