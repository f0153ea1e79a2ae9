"""One training loop for every stage: fit a module that maps a batch to losses, and survive being killed.

Sample n of a run is a function of (seed, n), and step s reads samples s * batch_size onwards. A resumed run therefore
repeats an uninterrupted one to the byte, and two processes that halve a batch take the same path as one that does not.
"""

import contextlib
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from histoloom.config import check_numbers
from histoloom.errors import ConfigError, HistoloomError, ModelError
from histoloom.fitting.checkpoint import FORMAT, load_checkpoint, running_average, save_checkpoint
from histoloom.fitting.processes import Alone, keep_freed_memory, processes_together
from histoloom.fitting.samples import Collate, Draw, Parts, lost_workers_explained, stream
from histoloom.fitting.stop import Stop
from histoloom.precision import Precision, resolved
from histoloom.progress import Bar

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


# A processor that waits for a loss cannot prepare the next step. Elsewhere every step is reported.
STEPS_PER_REPORT = {"cuda": 20}


@dataclass(frozen=True, kw_only=True)
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
    average_decay: float = 0.999  # of the running average of the weights; 0: the weights themselves
    precision: Precision = "auto"  # auto: bf16 where the hardware is faster in it
    checkpoint_minutes: float = 5.0
    workers: int = 1  # processes that prepare batches; 0 prepares them in the loop
    seed: int = 0

    def __post_init__(self):
        check_numbers(self)
        if min(self.steps, self.batch_size, self.accumulate) < 1 or min(self.workers, self.warmup_steps) < 0:
            raise ConfigError("steps, batch_size and accumulate must be 1 or more, workers and warmup_steps 0 or more")
        if min(self.learning_rate, self.checkpoint_minutes, self.clip_norm) <= 0:
            raise ConfigError("learning_rate, checkpoint_minutes and clip_norm must be positive")
        if not 0 <= self.average_decay < 1 or self.weight_decay < 0:
            raise ConfigError("average_decay must be in [0, 1), weight_decay 0 or more")


@dataclass(frozen=True)
class Step:
    """What the loop reports after a step; on a GPU after every 20th, and the last."""

    step: int
    steps: int
    losses: dict[str, float]
    samples_per_second: float
    waiting: float  # share of the time spent waiting for data


def fit(
    objective: nn.Module,
    draw: Draw,
    collate: Collate,
    config: LoopConfig,
    folder: Path | None = None,
    identity: dict | None = None,
    on_step: Callable[[Step], None] | None = None,
    on_checkpoint: Callable[[int, nn.Module], None] | None = None,
) -> nn.Module:
    """Train `objective` (batch -> dict of scalar losses with key "loss") and return its running average.

    `draw(n)` makes sample n from the seed; `identity` is what must not change between a run and its resumption.
    Checkpoints go to `folder` every `checkpoint_minutes` and at the end; the same call resumes from the last one.
    `on_checkpoint(step, averaged)` runs in the main process after each checkpoint, and again for the one that a run
    resumes from, after which that run may have been killed. A file `finish` in `folder`, or in
    the folder above it, ends the run after the next step with the weights that it has. With schedule "constant" a
    finished run may be lengthened by more `steps`. Without `folder` the training stays in memory and in this process.

    Raises Interrupted after SIGTERM or Ctrl-C, when the checkpoint of the next step is saved; ModelError for a
    checkpoint of another run; HistoloomError for a loss or gradient that is not finite, and for a lost worker.
    """
    keep_freed_memory()
    precision = resolved(config.precision)
    world = processes_together() if folder else Alone()
    check_batch(config, world.num_processes)
    objective.to(world.device)
    average = running_average(objective, config.average_decay)
    optimizer = torch.optim.AdamW(
        [p for p in objective.parameters() if p.requires_grad],
        lr=config.learning_rate,
        betas=(0.9, 0.99),
        weight_decay=config.weight_decay,
        fused=True,
    )
    identity_text = json.dumps({**(identity or {}), "format": FORMAT, "precision": precision}, sort_keys=True)
    start = load_checkpoint(folder, objective, average, optimizer, identity_text) if folder else 0
    if start > config.steps:
        raise ModelError(f"{folder}: has trained {start} steps, more than the {config.steps} asked for; ask for more")
    if start and on_checkpoint and world.is_main_process:
        on_checkpoint(start, average.module)
    if start and Stop(folder).wish(world)[1]:
        return average.module
    model, optimizer = world.prepare(objective, optimizer)
    parts = Parts(
        draw=draw,
        collate=collate,
        batch_size=config.batch_size,
        accumulate=config.accumulate,
        rank=world.process_index,
        ranks=world.num_processes,
    )
    numbers = range(start * config.accumulate, config.steps * config.accumulate)
    clock = _Clock(config.batch_size)
    with (
        Stop(folder) as stop,
        lost_workers_explained(folder or "training"),
        contextlib.closing(stream(parts, numbers, config.workers)) as batches,
    ):
        for step in range(start, config.steps):
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * learning_rate_factor(step, config)
            losses: dict[str, Tensor] = {}
            for _ in range(config.accumulate):
                with clock.waiting():
                    batch = next(batches)
                batch = {k: v.to(world.device) if isinstance(v, Tensor) else v for k, v in batch.items()}
                # Not by Accelerator, whose precision is one for the whole process: stages may differ.
                autocast = torch.autocast(world.device.type, torch.bfloat16, enabled=precision == "bf16")
                with autocast, _fast_attention(world.device):
                    part_losses = model(batch)
                world.backward(part_losses["loss"] / config.accumulate)
                for name, value in part_losses.items():
                    part = value.detach() / config.accumulate
                    losses[name] = losses[name] + part if name in losses else part
            norm = world.clip_grad_norm_(list(model.parameters()), config.clip_norm)
            optimizer.step()
            optimizer.zero_grad()
            average.update_parameters(world.unwrap_model(model))
            clock.step()
            done = step + 1
            if on_step and (done == config.steps or done % STEPS_PER_REPORT.get(world.device.type, 1) == 0):
                means = {name: _number(world.reduce(value, "mean")) for name, value in losses.items()}
                if world.is_main_process:
                    on_step(Step(done, config.steps, means, clock.rate, clock.share_waiting))
            interrupted, finished = stop.wish(world)
            last = done == config.steps or interrupted or finished
            due = clock.due(config.checkpoint_minutes) or last
            if world.is_main_process and due:
                if not math.isfinite(_number(losses["loss"]) + _number(norm)):
                    raise HistoloomError(_not_finite(folder, done))
                if folder:
                    save_checkpoint(folder, done, world.unwrap_model(model), average, optimizer, identity_text)
                if on_checkpoint:
                    on_checkpoint(done, average.module)
            if interrupted:
                world.wait_for_everyone()  # a launcher kills the others when one process ends
                raise stop.error(done, config.steps)
            if finished:
                break
    return average.module


def check_batch(config: LoopConfig, processes: int) -> None:
    """Raise ConfigError for a batch that so many processes cannot share in parts of one size."""
    if config.batch_size % (processes * config.accumulate):
        raise ConfigError(
            f"batch_size {config.batch_size} does not divide into {processes} processes x {config.accumulate} parts"
        )


def identity_of(config: "DataclassInstance", **more: str) -> dict:
    """What a run and its resumption must share: the stage's config without what may change between them.

    That is how often the run saves, who prepares batches, and with a constant rate the number of steps. `fit` adds the
    precision that the machine computes in.
    """
    values = asdict(config)
    free = ["checkpoint_minutes", "workers", "precision"]
    free += ["steps"] if values["loop"]["schedule"] == "constant" else []
    for name in free:
        values["loop"].pop(name)
    return values | more


def show_on(bar: Bar, size: int = 1) -> Callable[[Step], None]:
    """An `on_step` that advances `bar` by `size` items per step, at first past the steps of an interrupted run."""
    shown = 0

    def on_step(step: Step) -> None:
        nonlocal shown
        bar.advance((step.step - shown) * size, f"loss {step.losses['loss']:.4f}")
        shown = step.step

    return on_step


def learning_rate_factor(step: int, config: LoopConfig) -> float:
    """Linear warm-up, then cosine decay to 1 % (Loshchilov & Hutter 2017), or constant."""
    warm = min(1.0, (step + 1) / max(config.warmup_steps, 1))
    if config.schedule == "constant":
        return warm
    share = min(1.0, max(0, step - config.warmup_steps) / max(1, config.steps - config.warmup_steps))
    return warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share)))


def _number(value: object) -> float:
    return value.item() if isinstance(value, Tensor) else float("nan")


def _not_finite(folder: Path | None, step: int) -> str:
    where, cure = (f"{folder}: ", " and start in another folder") if folder else ("", "")
    return f"{where}the loss or gradient is not finite at step {step}; lower learning_rate{cure}"


def _fast_attention(device: torch.device) -> contextlib.AbstractContextManager:
    # On a CPU the fused kernel's backward pass is slow: a bf16 step of the classifier of types takes 0.35 CPU-seconds
    # with it, 0.27 without.
    return sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else contextlib.nullcontext()


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
