"""Encode many views of every patch once, so that training never waits for the autoencoder.

View v of patch i is a function of (seed, i, v): one of the eight symmetries, a stain, and a shift by less than one
latent. The same draw restains the crops that go with the view, so that stain follows the crop.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers.models.modeling_utils import ModelMixin
from jaxtyping import Bool, Float, Shaped

from histoloom.augmentation import dihedral, dihedral_back
from histoloom.errors import OutputError
from histoloom.files import whole_file, write_json
from histoloom.fitting.processes import process_state
from histoloom.models.autoencoder import encode, latent_channels, latent_factor, latents_hash, to_pixels
from histoloom.patches.store import Patches
from histoloom.progress import SILENT, Bar
from histoloom.records import read_json
from histoloom.stain import StainJitter, StainShift, apply_stain, draw_stain

CONSTANT = 1e-9  # variance over the mean square up to which a channel does not change but for rounding
RECORD = "latents.json"  # written when all views are encoded
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

    Raises OutputError where `folder` holds the latents of other patches, views or encoder weights, or cannot be
    written.
    """
    factor, channels = latent_factor(autoencoder), latent_channels(autoencoder)
    side = (min(patches.images.shape[1:3]) - factor + 1) // factor
    edge, path, record = side * factor, folder / "latents.npy", folder / RECORD
    key = {
        "patches": patches.fingerprint(),
        "views": views,
        "seed": seed,
        "encoder": latents_hash(autoencoder),
        "stain": [stain.scale, stain.shift, stain.brightness],
        "device": _device(autoencoder).type,
    }
    with process_state().main_process_first():
        if not (record.exists() and path.exists()):
            shape = (len(patches), views, channels, side, side)
            mean, std = _encode_all(autoencoder, patches, seed, stain, shape, path, bar)
            write_json(record, {"key": key, "mean": mean.tolist(), "std": std.tolist()})
    found = read_json(record)
    if differing := [name for name in key if found.get("key", {}).get(name) != key[name]]:
        raise OutputError(
            f"{folder}: holds latents of another run (differs in {', '.join(differing)}); name another folder, or "
            "remove this one"
        )
    mean, std = (np.asarray(found[name], np.float32) for name in ("mean", "std"))
    return LatentCache(np.load(path, mmap_mode="r"), mean, std, edge, factor, seed, stain)


@torch.no_grad()
def _encode_all(
    autoencoder: ModelMixin,
    patches: Patches,
    seed: int,
    stain: StainJitter,
    shape: tuple[int, ...],
    path: Path,
    bar: Bar,
) -> tuple[np.ndarray, np.ndarray]:
    """Write the latents of all views to `path`; returns their mean and standard deviation per channel.

    The deviation of a channel that never changes is 1, so that it can be divided by.
    """
    factor = latent_factor(autoencoder)
    edge, device = shape[-1] * factor, _device(autoencoder)
    total, squares = np.zeros(shape[2]), np.zeros(shape[2])
    # Written, not mapped: on a full disk a map ends in SIGBUS.
    with whole_file(path, f"needs {np.prod(shape) * 2e-9:.1f} GB for latents") as aside, aside.open("wb") as file:
        header = {"descr": np.lib.format.dtype_to_descr(np.dtype(np.float16)), "fortran_order": False}
        np.lib.format.write_array_header_1_0(file, header | {"shape": shape})
        for index, image in enumerate(patches.images):
            drawn = [draw_view(seed, index, view, factor, stain) for view in range(shape[1])]
            for start in range(0, len(drawn), BATCH):
                some = drawn[start : start + BATCH]
                seen = np.stack([apply_stain(view.part(image, 0, 0, edge), view.stain) for view in some])
                latents = encode(autoencoder, to_pixels(torch.from_numpy(seen).to(device))).float().cpu().numpy()
                file.write(latents.astype(np.float16).tobytes())
                total += latents.mean((2, 3), dtype=np.float64).sum(0)
                squares += np.square(latents, dtype=np.float64).mean((2, 3)).sum(0)
            bar.advance()
    mean = total / (shape[0] * shape[1])
    variance = squares / (shape[0] * shape[1]) - mean**2
    changes = variance > CONSTANT * (1 + mean**2)
    return mean, np.sqrt(np.where(changes, variance, 1))


def _device(model: torch.nn.Module) -> torch.device:
    return next(model.parameters()).device
