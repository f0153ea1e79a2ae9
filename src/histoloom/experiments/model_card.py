"""The card of a trained model: what it is, what it learned from, and what nobody has measured yet."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from histoloom.conditioning.kinds import CONDITIONINGS
from histoloom.errors import InputError
from histoloom.experiments.context import Run
from histoloom.experiments.recipe import Recipe
from histoloom.license import UNKNOWN, License
from histoloom.models.denoiser import Denoiser
from histoloom.models.model_files import local_folder
from histoloom.models.sampling import Sampling
from histoloom.models.schedulers import make_sampler
from histoloom.patches.dataset import read_description
from histoloom.patches.store import common_mpp
from histoloom.tissue import UNLABELLED
from histoloom.version import VERSION


def model_card(run: Run, denoiser: Denoiser, dataset: Path, copy_limit: float | None) -> str:
    """Markdown for the model's README.md, from what the run knows of its data and settings."""
    recipe, patches = run.recipe, run.patches
    loop = (recipe.denoiser if denoiser.student is None else recipe.distillation or recipe.denoiser).loop
    scheduler, usual = make_sampler(denoiser.samplers)
    asked = Sampling() if denoiser.student is None else denoiser.student.resolve(Sampling())
    data_license, origins = _license(dataset), _origins(recipe)
    environment = Environment(
        loader=PackageLoader("histoloom.experiments", "."),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=True,
    )
    environment.filters["yaml"] = json.dumps  # a JSON text is a YAML scalar
    return environment.get_template("model_card.md.jinja").render(
        name=run.folder.resolve().name,
        license=data_license.joined(*(origin for _, origin in origins)),
        data_license=data_license,
        origins=origins,
        config=denoiser.config,
        reads=CONDITIONINGS[denoiser.config["conditioning"]],
        parameters=sum(p.numel() for p in denoiser.parameters()) / 1e6,
        split=recipe.data.split,
        patches=len(patches),
        cases=len(set(patches.cases)),
        edge=patches.images.shape[1],
        mpp=common_mpp(patches.mpp),
        fingerprint=patches.fingerprint(),
        types=_types(run),
        windows=loop.steps * loop.batch_size,
        window=recipe.denoiser.window,
        seed=loop.seed,
        objective=denoiser.config["objective"],
        initial=Path(recipe.initial_model).name,
        guide=_guide(recipe),
        student=denoiser.student,
        scheduler=type(scheduler).__name__,
        steps=asked.steps or usual,
        copy_limit=copy_limit,
        crops=asdict(recipe.denoiser.crops),
        version=VERSION,
    )


def _guide(recipe: Recipe) -> dict | None:
    """Name and weight of the model that training kept away from."""
    guide = recipe.denoiser.guide
    return None if guide is None else {"name": Path(guide.model).name, "weight": guide.weight}


def _origins(recipe: Recipe) -> list[tuple[str, License]]:
    """Name and license of each model whose weights the run goes on from."""
    given = dict.fromkeys(name for name in (recipe.initial_model, recipe.pretrained_autoencoder) if name)
    return [(Path(name).name, License.of_card(local_folder(name, ["README.md"]))) for name in given]


def _license(dataset: Path) -> License:
    try:
        return License.of(read_description(dataset) or {})
    except InputError:
        return UNKNOWN


def _types(run: Run) -> list[dict]:
    """Each type with the share of labeled pixels that it covers."""
    counts = np.bincount(run.patches.semantic_maps.ravel(), minlength=256)
    counts[UNLABELLED] = 0
    total = max(int(counts.sum()), 1)
    return [{"id": t.id, "name": t.name, "share": counts[t.id] / total} for t in run.table.types]
