"""What training loops share about samples: draw them from patches, stack them into batches, stream the batches."""

import signal
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Shaped, UInt8
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from histoloom.augmentation import dihedral
from histoloom.errors import HistoloomError
from histoloom.stain import StainJitter, apply_stain, draw_stain

Draw = Callable[[int], dict]
Collate = Callable[[list[dict]], dict]


def draw_part(
    images: UInt8[np.ndarray, "n h w 3"],
    index: int,
    size: int,
    stain: StainJitter,
    rng: np.random.Generator,
    maps: Shaped[np.ndarray, "n h w"] | None = None,
) -> tuple[UInt8[np.ndarray, "s s 3"], Shaped[np.ndarray, "s s"] | None]:
    """A random square of image `index` and of its map, turned or mirrored; the image under a random stain."""
    height, width = images.shape[1:3]
    y, x = int(rng.integers(height - size + 1)), int(rng.integers(width - size + 1))
    which = int(rng.integers(8))
    image, semantic_map = (
        None if array is None else dihedral(array[index, y : y + size, x : x + size], which) for array in (images, maps)
    )
    assert image is not None
    return apply_stain(image, draw_stain(stain, rng)), semantic_map


def to_pixels(images: UInt8[Tensor, "b h w 3"]) -> Float[Tensor, "b 3 h w"]:
    """uint8 `b h w 3` as float `b 3 h w` in [-1, 1]."""
    return images.movedim(-1, 1).to(torch.float32) / 127.5 - 1


def stack(samples: list[dict]) -> dict[str, Tensor]:
    """Samples that hold arrays of equal shapes, stacked key by key."""
    return {key: torch.from_numpy(np.stack([sample[key] for sample in samples])) for key in samples[0]}


@dataclass(frozen=True, kw_only=True)
class Parts(Dataset):
    """Parts of batches by number: part p of this process holds `draw(n)` for each of its samples n, collated."""

    draw: Draw
    collate: Collate
    batch_size: int  # samples per step, over all processes and parts
    accumulate: int  # parts per process and step
    rank: int
    ranks: int

    def __getitem__(self, part: int) -> dict:
        size = self.batch_size // (self.ranks * self.accumulate)
        step, piece = divmod(part, self.accumulate)
        first = step * self.batch_size + (self.rank * self.accumulate + piece) * size
        return self.collate([self.draw(n) for n in range(first, first + size)])


def stream(parts: Parts, numbers: range, workers: int) -> Generator[dict, None, None]:
    """The parts of these numbers in order, prepared by `workers` processes (0: when they are asked for).

    Close it: the workers end then. Python itself cannot end them at exit, because they ignore its SIGTERM.
    """
    loader = DataLoader(
        parts,
        batch_size=None,  # one part per item, passed on as it is
        sampler=list(numbers),
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_leave_signals_to_the_loop,
    )
    yield from loader


@contextmanager
def lost_workers_explained(place: object) -> Iterator[None]:
    """Raise HistoloomError, naming `place`, where a worker of `stream` dies.

    Torch says so at any line of the block, or loses the connection to a worker that has just died.
    """
    try:
        yield
    except (RuntimeError, ConnectionError, EOFError) as error:
        if isinstance(error, RuntimeError) and not str(error).startswith("DataLoader worker"):
            raise
        if not isinstance(error, RuntimeError):
            with suppress(RuntimeError):  # which torch raises at any line, once the signal of the death arrives
                time.sleep(1)
        raise HistoloomError(
            f"{place}: a process that prepares batches died, perhaps for lack of memory; free some and give the same "
            "command again, with workers = 0 in this stage's loop if it dies again"
        ) from None


def _leave_signals_to_the_loop(worker: int) -> None:
    # A terminal sends Ctrl-C to the whole group, a scheduler SIGTERM: a worker that died of it would end the run before
    # the loop has saved a checkpoint. Workers end when the loop does.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
