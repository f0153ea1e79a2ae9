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
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from fuzz_files import kinds, write_valid

SECONDS, GIGABYTES = 60, 4
TEXT = {".json", ".toml", ".csv", ".geojson", ".xml"}
HOSTILE = [
    None, True, [], {}, "", "../../../etc/passwd", "/etc/passwd", "a\nb\x1b[31m", "=cmd", "x" * 10**6, -1, 0, 255, 256,
    10**18, -(10**18), 1e308, float("nan"), float("inf"), "nan", [[[[]]]], {"a": {"b": {}}},
]  # fmt: skip


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
