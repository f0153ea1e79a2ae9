"""One loop for every stage: fit a module that maps a batch to losses, and survive being killed.

Sample n of a run is a function of (seed, n), and step s reads samples s * batch_size onwards. So a resumed run repeats
an uninterrupted one to the byte, and two processes that halve a batch walk the path of one that does not.
"""

import contextlib
import ctypes
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, PartialState
from accelerate.utils import parse_flag_from_env
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import DataLoader, Dataset

from histoloom.errors import ConfigError, HistoloomError
from histoloom.fitting.checkpoint import load_checkpoint, running_average, save_checkpoint
from histoloom.precision import Precision, use_bf16
from histoloom.progress import Bar


@dataclass(frozen=True)
class LoopConfig:
    """How a stage is trained."""

    steps: int = 1000
    batch_size: int = 32  # samples per step, over all processes and accumulated parts
    accumulate: int = 1  # parts that a process cuts its share of the batch into
    learning_rate: float = 1e-3
    warmup_steps: int = 100
    schedule: Literal["cosine", "constant"] = "cosine"  # after the warm-up; cosine ends at 1 % of the rate
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    average_decay: float = 0.999  # of the running average of the weights
    precision: Precision = "auto"  # auto: bf16 where the hardware is faster in it
    checkpoint_minutes: float = 5.0
    workers: int = 1  # processes that prepare batches; 0 prepares them in the loop
    seed: int = 0

    def __post_init__(self):
        if min(self.steps, self.batch_size, self.accumulate) < 1 or self.workers < 0:
            raise ConfigError("steps, batch_size and accumulate must be 1 or more, workers 0 or more")
        if self.learning_rate <= 0 or not 0 <= self.average_decay < 1 or self.checkpoint_minutes <= 0:
            raise ConfigError("learning_rate and checkpoint_minutes must be positive, average_decay in [0, 1)")


@dataclass(frozen=True)
class Progress:
    """What the loop tells after a step."""

    step: int
    steps: int
    losses: dict[str, float]
    samples_per_second: float
    waiting: float  # share of the time spent waiting for data


class _Samples(Dataset):
    """Parts of batches by number: part p of this process, `draw(n)` for each sample n in it, collated."""

    def __init__(
        self,
        draw: Callable[[int], dict],
        collate: Callable[[list[dict]], dict],
        config: LoopConfig,
        rank: int,
        ranks: int,
    ):
        self.draw, self.collate = draw, collate
        self.size, self.accumulate = config.batch_size // (ranks * config.accumulate), config.accumulate
        self.batch_size, self.rank = config.batch_size, rank

    def __getitem__(self, part: int) -> dict:
        step, piece = divmod(part, self.accumulate)
        first = step * self.batch_size + (self.rank * self.accumulate + piece) * self.size
        return self.collate([self.draw(n) for n in range(first, first + self.size)])


def fit(
    objective: nn.Module,
    draw: Callable[[int], dict],
    collate: Callable[[list[dict]], dict],
    config: LoopConfig,
    folder: Path,
    identity: dict,
    on_step: Callable[[Progress], None] | None = None,
    on_checkpoint: Callable[[int, nn.Module], None] | None = None,
) -> nn.Module:
    """Train `objective` (batch -> dict of scalar losses with key "loss") and return its running average.

    `draw(n)` makes sample n from the recipe's seed; `identity` is what must not change between a run and its
    resumption. Checkpoints go to `folder` every `checkpoint_minutes` and at the end; the same call goes on from the
    last one. `on_checkpoint(step, averaged)` runs in the main process after each checkpoint.
    """
    # A batch may hold no crops at all, and then their encoder has no gradient.
    handlers = [DistributedDataParallelKwargs(find_unused_parameters=True)]
    _keep_freed_memory()
    bf16 = use_bf16(config.precision)
    accelerator = Accelerator(mixed_precision="no", kwargs_handlers=handlers)
    if config.batch_size % (accelerator.num_processes * config.accumulate):
        raise ConfigError(
            f"batch_size {config.batch_size} does not divide into {accelerator.num_processes} processes x "
            f"{config.accumulate} parts"
        )
    folder.mkdir(parents=True, exist_ok=True)
    objective.to(accelerator.device)
    average = running_average(objective, config.average_decay)
    optimizer = torch.optim.AdamW(
        [p for p in objective.parameters() if p.requires_grad],
        lr=config.learning_rate,
        betas=(0.9, 0.99),
        weight_decay=config.weight_decay,
        fused=True,
    )
    identity_text = json.dumps(identity, sort_keys=True)
    start = load_checkpoint(folder, objective, average, optimizer, identity_text)
    model, optimizer = accelerator.prepare(objective, optimizer)
    samples = _Samples(draw, collate, config, accelerator.process_index, accelerator.num_processes)
    parts = _stream(samples, range(start * config.accumulate, config.steps * config.accumulate), config.workers)
    clock = _Clock(config.batch_size)
    for step in range(start, config.steps):
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * learning_rate_factor(step, config)
        losses: dict[str, Tensor] = {}
        for _ in range(config.accumulate):
            with clock.waiting():
                batch = next(parts)
            batch = {k: v.to(accelerator.device) if isinstance(v, Tensor) else v for k, v in batch.items()}
            # Not by Accelerator, whose precision is one for the whole process: stages may differ.
            with (
                torch.autocast(accelerator.device.type, torch.bfloat16, enabled=bf16),
                _fast_attention(accelerator.device),
            ):
                part_losses = model(batch)
            accelerator.backward(part_losses["loss"] / config.accumulate)
            for name, value in part_losses.items():
                losses[name] = losses.get(name, 0) + value.detach() / config.accumulate
        norm = accelerator.clip_grad_norm_(model.parameters(), config.clip_norm)
        optimizer.step()
        optimizer.zero_grad()
        average.update_parameters(accelerator.unwrap_model(model))
        clock.step()
        done = step + 1
        if on_step:
            means = {k: float(accelerator.reduce(v, "mean")) for k, v in losses.items()}
            if accelerator.is_main_process:
                on_step(Progress(done, config.steps, means, clock.rate, clock.share_waiting))
        due = clock.due(config.checkpoint_minutes) or done == config.steps
        if accelerator.is_main_process and due:
            if not math.isfinite(float(losses["loss"]) + float(norm)):
                raise HistoloomError(
                    f"{folder}: loss or gradient is not finite at step {done}; lower learning_rate and start in "
                    "another folder"
                )
            save_checkpoint(folder, done, accelerator.unwrap_model(model), average, optimizer, identity_text)
            if on_checkpoint:
                on_checkpoint(done, average.module)
    return average.module


def process_state() -> PartialState:
    """This process among those of the run; by itself, `PartialState` knows no group of CPU processes."""
    return PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"))


def identity_of(config: object, **more: str) -> dict:
    """What a run and its resumption must share: all of a stage's config but how often it saves and who prepares
    batches."""
    values = asdict(config)
    for free in ("checkpoint_minutes", "workers"):
        values["loop"].pop(free)
    return values | more


def stack(samples: list[dict]) -> dict[str, Tensor]:
    """Samples that hold arrays of equal shapes, stacked key by key."""
    return {key: torch.from_numpy(np.stack([sample[key] for sample in samples])) for key in samples[0]}


def show_on(bar: Bar, size: int = 1) -> Callable[[Progress], None]:
    """An `on_step` that advances `bar` by `size` items per step, at first past the steps of an interrupted run."""
    shown = 0

    def on_step(progress: Progress) -> None:
        nonlocal shown
        bar.advance((progress.step - shown) * size, f"loss {progress.losses['loss']:.4f}")
        shown = progress.step

    return on_step


def learning_rate_factor(step: int, config: LoopConfig) -> float:
    """Linear warm-up, then cosine decay to 1 % (Loshchilov & Hutter 2017), or constant."""
    warm = min(1.0, (step + 1) / max(config.warmup_steps, 1))
    if config.schedule == "constant":
        return warm
    share = min(1.0, max(0, step - config.warmup_steps) / max(1, config.steps - config.warmup_steps))
    return warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share)))


def _stream(samples: _Samples, parts: range, workers: int) -> Iterator[dict]:
    # One part per item: `batch_size=None` hands the collated dict through as it is.
    loader = DataLoader(
        samples,
        batch_size=None,
        sampler=list(parts),
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        pin_memory=torch.cuda.is_available(),
    )
    return iter(loader)


def _fast_attention(device: torch.device) -> contextlib.AbstractContextManager:
    # On a CPU the fused kernel's backward pass is slow: a bf16 step of the classifier of types takes 0.35 CPU-seconds
    # with it, 0.27 without.
    return sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else contextlib.nullcontext()


def _keep_freed_memory() -> None:
    # glibc hands large blocks back to the kernel and faults them in again at every step: 40 % of a step on two cores.
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        trim_threshold, mmap_max = -1, -4
        libc.mallopt(trim_threshold, 2**31 - 1)
        libc.mallopt(mmap_max, 0)


class _Clock:
    """Rates over the last stretch of steps; the first step (warming up) does not count."""

    def __init__(self, batch_size: int):
        self.batch_size, self.rate, self.share_waiting = batch_size, 0.0, 0.0
        self._start = self._last_save = time.perf_counter()
        self._steps, self._waited = 0, 0.0

    def waiting(self) -> "_Clock":
        return self

    def __enter__(self) -> None:
        self._entered = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._waited += time.perf_counter() - self._entered

    def step(self) -> None:
        now = time.perf_counter()
        self._steps += 1
        elapsed = now - self._start
        self.rate, self.share_waiting = self._steps * self.batch_size / elapsed, self._waited / elapsed
        if elapsed > 60 or self._steps == 1:
            self._start, self._steps, self._waited = now, 0, 0.0

    def due(self, minutes: float) -> bool:
        """True once per `minutes`."""
        if time.perf_counter() - self._last_save < 60 * minutes:
            return False
        self._last_save = time.perf_counter()
        return True
