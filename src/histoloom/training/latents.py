"""Encode many views of every patch once, so that training never waits for the autoencoder.

View v of patch i is a function of (seed, i, v): one of the eight symmetries, a stain, and a shift by less than one
latent. The same draw restains the crops that go with the view, so that stain follows the crop.
"""

import io
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers.models.modeling_utils import ModelMixin
from jaxtyping import Bool, Float, Shaped, UInt8

from histoloom.augmentation import dihedral, dihedral_back
from histoloom.disk import flush, one_clear_line, settle
from histoloom.errors import OutputError
from histoloom.files import move, write_json
from histoloom.fitting.processes import process_state
from histoloom.models.autoencoder import encode, latent_channels, latent_factor, latents_hash, to_pixels
from histoloom.patches.store import Patches
from histoloom.progress import SILENT, Bar
from histoloom.records import read_json
from histoloom.stain import StainJitter, StainShift, apply_stain, draw_stain

CONSTANT = 1e-9  # variance over the mean square up to which a channel does not change but for rounding
LATENTS, BEGUN = "latents.npy", "latents.begun.npy"  # the second until all views are encoded
RECORD = "latents.json"  # what they are of, how many patches are encoded, and sums of their latents
SAVE_SECONDS = 60.0  # between two records
BATCH = 16  # views encoded at once


@dataclass(frozen=True)
class View:
    """One augmentation of a patch: symmetry, stain, and the corner of the part that was encoded."""

    symmetry: int
    stain: StainShift
    y: int
    x: int

    def part(
        self, array: Shaped[np.ndarray, "h w *c"], row: int, column: int, edge: int
    ) -> Shaped[np.ndarray, "e e *c"]:
        """Cut `edge` px from px (row, column) of an image, map or mask as this view turns it; the stain stays."""
        y, x = self.y + row, self.x + column
        return np.ascontiguousarray(dihedral(array, self.symmetry)[y : y + edge, x : x + edge])

    def outside(self, shape: tuple[int, int], row: int, column: int, edge: int) -> Bool[np.ndarray, "h w"]:
        """The pixels of the patch that are not in that part."""
        turned = np.ones(shape[::-1] if self.symmetry % 2 else shape, bool)
        turned[self.y + row : self.y + row + edge, self.x + column : self.x + column + edge] = False
        return dihedral_back(turned, self.symmetry)


@dataclass(frozen=True, eq=False)
class LatentCache:
    """Latents float16 `n views c h w` on disk, their mean and standard deviation per channel, and their views."""

    latents: Float[np.ndarray, "n v c h w"]
    mean: Float[np.ndarray, " c"]
    std: Float[np.ndarray, " c"]
    edge: int  # px of the part of a patch that was encoded
    factor: int
    seed: int
    stain: StainJitter

    def view(self, index: int, view: int) -> View:
        """View `view` of patch `index`."""
        return draw_view(self.seed, index, view, self.factor, self.stain)


def draw_view(seed: int, index: int, view: int, slack: int, stain: StainJitter) -> View:
    """The view as a function of its numbers, shifted by less than `slack` px."""
    rng = np.random.default_rng((seed, index, view))
    symmetry, y, x = int(rng.integers(8)), int(rng.integers(slack)), int(rng.integers(slack))
    return View(symmetry, draw_stain(stain, rng), y, x)


def cache_latents(
    autoencoder: ModelMixin,
    patches: Patches,
    views: int,
    seed: int,
    stain: StainJitter,
    folder: Path,
    bar: Bar = SILENT,
) -> LatentCache:
    """Encode `views` views of each patch into `folder`, or open what an earlier call has written there.

    The same call goes on where an interrupted one has stopped. Raises OutputError where `folder` holds the latents of
    other patches, views or encoder weights, or cannot be written.
    """
    factor, channels = latent_factor(autoencoder), latent_channels(autoencoder)
    side = (min(patches.images.shape[1:3]) - factor + 1) // factor
    key = {
        "patches": patches.fingerprint(),
        "views": views,
        "seed": seed,
        "encoder": latents_hash(autoencoder),
        "stain": [stain.scale, stain.shift, stain.brightness],
        "device": _device(autoencoder).type,
    }
    with process_state().main_process_first():
        if not ((folder / RECORD).exists() and (folder / LATENTS).exists()):
            shape = (len(patches), views, channels, side, side)
            _encode_all(autoencoder, patches, seed, stain, shape, key, folder, bar)
    found = read_json(folder / RECORD)
    if differing := [name for name in key if found.get("key", {}).get(name) != key[name]]:
        raise OutputError(
            f"{folder}: holds latents of another run (differs in {', '.join(differing)}); name another folder, or "
            "remove this one"
        )
    mean, std = _mean_and_std(found, views)
    return LatentCache(np.load(folder / LATENTS, mmap_mode="r"), mean, std, side * factor, factor, seed, stain)


@torch.no_grad()
def _encode_all(
    autoencoder: ModelMixin,
    patches: Patches,
    seed: int,
    stain: StainJitter,
    shape: tuple[int, ...],
    key: dict,
    folder: Path,
    bar: Bar,
) -> None:
    """Write the latents of all views and their record; goes on where an interrupted call of the same key stopped."""
    factor, begun, record = latent_factor(autoencoder), folder / BEGUN, folder / RECORD
    header, size = _header(shape), int(np.prod(shape[1:])) * 2
    done, sums = _interrupted(folder, key, len(header), size) or (0, np.zeros((2, shape[2])))
    with one_clear_line(folder / LATENTS, f"needs {shape[0] * size * 1e-9:.1f} GB for latents"):
        folder.mkdir(parents=True, exist_ok=True)
        for stale in (folder / LATENTS, *(() if done else (record, begun))):  # without the others, of no use
            stale.unlink(missing_ok=True)
        try:
            # Written, not mapped: on a full disk a map ends in SIGBUS.
            with begun.open("r+b" if done else "wb") as file:
                file.write(header)
                file.truncate(file.seek(done * size, os.SEEK_CUR))
                bar.advance(done)
                saved = time.monotonic()
                for index in range(done, shape[0]):
                    views = [draw_view(seed, index, view, factor, stain) for view in range(shape[1])]
                    for latents in _encode_views(autoencoder, patches.images[index], views, shape[-1] * factor):
                        file.write(latents.astype(np.float16).tobytes())
                        sums[0] += latents.mean((2, 3), dtype=np.float64).sum(0)
                        sums[1] += np.square(latents, dtype=np.float64).mean((2, 3)).sum(0)
                    if index + 1 == shape[0] or time.monotonic() - saved > SAVE_SECONDS:
                        file.flush()
                        flush(begun)
                        write_json(record, {"key": key, "patches": index + 1, "sums": sums.tolist()})
                        saved = time.monotonic()
                    bar.advance()
        finally:
            if not record.exists():
                begun.unlink(missing_ok=True)
        settle(begun)
    move(begun, folder / LATENTS)


def _header(shape: tuple[int, ...]) -> bytes:
    """How a file of latents begins."""
    file = io.BytesIO()
    described = {"descr": np.lib.format.dtype_to_descr(np.dtype(np.float16)), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, described)
    return file.getvalue()


def _encode_views(
    autoencoder: ModelMixin, image: UInt8[np.ndarray, "h w 3"], views: list[View], edge: int
) -> Iterator[Float[np.ndarray, "v c y x"]]:
    """The latents of the views of an image, some views at a time."""
    for start in range(0, len(views), BATCH):
        some = views[start : start + BATCH]
        seen = np.stack([apply_stain(view.part(image, 0, 0, edge), view.stain) for view in some])
        yield encode(autoencoder, to_pixels(torch.from_numpy(seen).to(_device(autoencoder)))).float().cpu().numpy()


def num_encoded(folder: Path, patches: int) -> int:
    """How many of `patches` patches `cache_latents` has encoded into `folder`, finished or not."""
    if not (folder / RECORD).exists():
        return 0
    return read_json(folder / RECORD).get("patches", patches)


def _interrupted(folder: Path, key: dict, start: int, size: int) -> tuple[int, Float[np.ndarray, "2 c"]] | None:
    """How many patches of `size` bytes an interrupted call has encoded from byte `start` on, and the sums of their
    latents; None where there are none of this key."""
    begun, record = folder / BEGUN, folder / RECORD
    if not (begun.exists() and record.exists()):
        return None
    found = read_json(record)
    if found.get("key") != key or begun.stat().st_size < start + found["patches"] * size:
        return None
    return found["patches"], np.array(found["sums"])


def _mean_and_std(record: dict, views: int) -> tuple[Float[np.ndarray, " c"], Float[np.ndarray, " c"]]:
    """Of the latents, per channel.

    The deviation of a channel that never changes is 1, so that it can be divided by.
    """
    if "mean" in record:  # as versions before this one wrote it
        return np.asarray(record["mean"], np.float32), np.asarray(record["std"], np.float32)
    mean, squares = np.array(record["sums"]) / (record["patches"] * views)
    variance = squares - mean**2
    changes = variance > CONSTANT * (1 + mean**2)
    return mean.astype(np.float32), np.sqrt(np.where(changes, variance, 1)).astype(np.float32)


def _device(model: torch.nn.Module) -> torch.device:
    return next(model.parameters()).device
