"""A saved pipeline, checked: its files before it is opened, and whether its parts fit each other."""

from pathlib import Path
from typing import Any

import torch

from histoloom.errors import ModelError, TissueError
from histoloom.models.autoencoder import AUTOENCODERS, latent_channels, latent_factor
from histoloom.models.denoiser import Denoiser
from histoloom.models.model_files import CONFIG, INDEX, WEIGHTS, check_finite, check_weights, first_line, read_config
from histoloom.models.schedulers import Scheduler, scheduler_classes
from histoloom.text import shorten
from histoloom.tissue import TissueTable

PIPELINE, SCHEDULER = "HistoloomPipeline", "scheduler_config.json"
TIMES = 1000  # of all noise, as denoisers know it
FILES = [INDEX, "*/*.json", "*.safetensors", "README.md", "crops/*"]  # what is downloaded of a model on the hub


def check_files(folder: Path) -> None:
    """Raise ModelError naming the file of a saved model that is missing, damaged, or of another kind."""
    if not (folder / INDEX).is_file():
        raise ModelError(f"{folder}: not a Histoloom model (no {INDEX}); train one with `histoloom train`")
    index = read_config(folder / INDEX)
    if index.get("_class_name") != PIPELINE:
        raise ModelError(f"{folder / INDEX}: names a {str(index.get('_class_name'))[:60]!r}, not a Histoloom model")
    known = {
        "autoencoder": {("diffusers", name) for name in AUTOENCODERS},
        "denoiser": {(Denoiser.__module__, Denoiser.__name__)},
        "scheduler": scheduler_classes(),
    }
    for part, kinds in known.items():
        found = index.get(part)
        if not isinstance(found, list) or not all(isinstance(n, str) for n in found) or tuple(found) not in kinds:
            names = ", ".join(sorted(name for _, name in kinds))
            raise ModelError(f"{folder / INDEX}: {part} is {str(found)[:80]}; known: {names}")
    _check_index(index, folder / INDEX)
    read_config(folder / "scheduler" / SCHEDULER)
    check_weights(folder / "denoiser", lambda config: Denoiser.from_config(config), all_used=True)
    autoencoder = AUTOENCODERS[index["autoencoder"][1]]
    check_weights(folder / "autoencoder", lambda config: autoencoder.from_config(config), all_used=True)


def _check_index(index: dict, path: Path) -> None:
    """Raise ModelError for a tissue table, copy limit or scale that makes no sense."""
    rows = index.get("tissue")
    table = rows if isinstance(rows, list) and all(isinstance(row, dict) for row in rows) else []
    try:
        TissueTable.from_rows(table)
    except TissueError as error:
        raise ModelError(f"{path}: {error}") from None
    limit, mpp = index.get("copy_limit"), index.get("mpp")
    if limit is not None and not (type(limit) in (int, float) and 0 < limit <= 1):
        raise ModelError(f"{path}: copy_limit is {shorten(repr(limit))}; give a number above 0, up to 1, or none")
    if mpp is not None and not (type(mpp) in (int, float) and 0.01 <= mpp <= 100):
        raise ModelError(f"{path}: mpp is {shorten(repr(mpp))}; give 0.01 to 100 micrometers per pixel, or none")


def check_parts(pipeline: Any, folder: Path) -> None:
    """Raise ModelError where the parts of a model are not finite, or do not fit each other."""
    denoiser, autoencoder = pipeline.denoiser, pipeline.autoencoder
    check_finite(denoiser, folder / "denoiser" / WEIGHTS)
    check_finite(autoencoder, folder / "autoencoder" / WEIGHTS)
    _check_scheduler(pipeline.scheduler, folder / "scheduler" / SCHEDULER)
    path = folder / "denoiser" / CONFIG
    if denoiser.config["latent_mean"] is None or denoiser.config["latent_std"] is None:
        raise ModelError(f"{path}: has no latent_mean and latent_std, so it is not a trained denoiser")
    wanted = denoiser.config["latent_channels"], denoiser.latent_factor
    found = latent_channels(autoencoder), latent_factor(autoencoder)
    if wanted != found:
        raise ModelError(
            f"{path}: is for latents of {wanted[0]} channels and factor {wanted[1]}, but the autoencoder makes "
            f"{found[0]} and {found[1]}"
        )
    if pipeline.table.num_ids > denoiser.num_types:
        raise ModelError(
            f"{folder / INDEX}: the tissue table has id {pipeline.table.num_ids - 1}; the denoiser knows "
            f"{denoiser.num_types} types"
        )


def _check_scheduler(saved: Scheduler, path: Path) -> None:
    """Raise ModelError for a scheduler that cannot take steps, or whose times are not those of a denoiser."""
    try:
        scheduler, latents = type(saved).from_config(saved.config), torch.zeros(1, 1, 8, 8)
        scheduler.set_timesteps(2)
        for t in scheduler.timesteps:
            scheduler.step(latents, t, latents)
    except Exception as error:  # whatever a library makes of a stranger's configuration
        raise ModelError(f"{path}: describes no sampler ({first_line(error)}); copy the model again") from None
    if saved.config["num_train_timesteps"] != TIMES:
        raise ModelError(f"{path}: num_train_timesteps is {saved.config['num_train_timesteps']}; give {TIMES}")
