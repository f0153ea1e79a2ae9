"""Refuse a recipe that cannot work before anything else is done.

What one table decides alone is refused where its dataclass is built. Here stand the rules that take several tables, the
patches, or another model.
"""

from diffusers.models.modeling_utils import ModelMixin

from histoloom.errors import ConfigError, InputError, ModelError
from histoloom.experiments.data import hidden_types
from histoloom.experiments.recipe import Recipe
from histoloom.fitting.loop import check_batch
from histoloom.fitting.processes import process_state
from histoloom.models.autoencoder import latent_channels, latent_factor, load_autoencoder, same_latents
from histoloom.models.pipeline import HistoloomPipeline
from histoloom.tissue import TissueTable


def check_recipe(
    recipe: Recipe,
    edge: int,
    table: TissueTable,
    initial: HistoloomPipeline | None,
    guide: HistoloomPipeline | None = None,
) -> None:
    """Raise ConfigError or InputError, naming the key, for a recipe that cannot train on patches of `edge` px.

    `initial` is the model that `initial_model` names, if any, and `guide` that of `denoiser.guide`.
    """
    if not table.ids:
        raise InputError("the tissue table names no type; add one")
    if len(hidden_types(recipe.denoiser, table)) == len(table.ids):
        raise ConfigError("denoiser hidden names all types, so maps would show none; leave one out")
    if recipe.distillation is not None:
        for name, given in (("[decoder]", recipe.decoder), ("pretrained_autoencoder", recipe.pretrained_autoencoder)):
            if given:
                raise ConfigError(
                    f"{name} has no effect in a distillation, which keeps the teacher's autoencoder; leave it out"
                )
    autoencoder = given_autoencoder(recipe, initial)
    if autoencoder is None and recipe.autoencoder.size > edge:
        raise ConfigError(f"patches are {edge} px, smaller than autoencoder size {recipe.autoencoder.size}")
    factor = 2 ** len(recipe.autoencoder.model.channels) if autoencoder is None else latent_factor(autoencoder)
    _check_decoder(recipe, edge, factor)
    if initial is not None and autoencoder is not None:
        if recipe.distillation is not None:
            _check_types(table, initial)
        else:
            _check_initial(recipe, initial, autoencoder)
    if guide is not None:
        _check_guide(recipe, guide, autoencoder)
    _check_window(recipe, edge, factor)
    _check_batches(recipe, autoencoder is None)
    if recipe.watch.map_fidelity and len(table.ids) > 1:
        unit = 2 ** len(recipe.watch.segmenter.channels)
        if edge < unit:
            raise ConfigError(f"patches are {edge} px, too small for the segmenter of [watch], which needs {unit} px")


def given_autoencoder(recipe: Recipe, initial: HistoloomPipeline | None) -> ModelMixin | None:
    """The autoencoder that the recipe names; None where it trains one."""
    if recipe.pretrained_autoencoder:
        return load_autoencoder(recipe.pretrained_autoencoder)
    return None if initial is None else initial.autoencoder


def _check_decoder(recipe: Recipe, edge: int, factor: int) -> None:
    if recipe.decoder is None:
        return
    if recipe.decoder.size > edge:
        raise ConfigError(f"patches are {edge} px, smaller than decoder size {recipe.decoder.size}")
    if recipe.decoder.size % factor:
        raise ConfigError(f"decoder size {recipe.decoder.size} must be a multiple of {factor} px")


def _check_batches(recipe: Recipe, own_autoencoder: bool) -> None:
    """Refuse the batches of a late stage before an early one is trained."""
    stages = {
        "autoencoder": recipe.autoencoder if own_autoencoder else None,
        "decoder": recipe.decoder,
        "denoiser": recipe.denoiser if recipe.distillation is None else None,
        "distillation": recipe.distillation,
    }
    for name, stage in stages.items():
        if stage is None:
            continue
        try:
            check_batch(stage.loop, process_state().num_processes)
        except ConfigError as error:
            raise ConfigError(f"{name} loop: {error}") from None


def _check_initial(recipe: Recipe, initial: HistoloomPipeline, autoencoder: ModelMixin) -> None:
    if initial.denoiser.student is not None:
        raise ModelError(
            f"initial_model {recipe.initial_model}: is a distilled model, which cannot be trained further; name its "
            "teacher"
        )
    found, wanted = initial.denoiser.config, recipe.denoiser
    pairs = {
        "conditioning": (found["conditioning"], wanted.conditioning),
        "channels": (tuple(found["channels"]), wanted.channels),
        "blocks": (tuple(found["blocks"]), wanted.blocks),
        "objective": (found["objective"], wanted.objective),
        "latent channels": (found["latent_channels"], latent_channels(autoencoder)),
        "latent factor": (found["latent_factor"], latent_factor(autoencoder)),
    }
    for name, (has, needs) in pairs.items():
        if has != needs:
            raise ModelError(
                f"initial_model {recipe.initial_model}: has {name} {has}, the recipe needs {needs}; change the "
                "recipe, or leave initial_model out to train from random weights"
            )


def _check_guide(recipe: Recipe, guide: HistoloomPipeline, autoencoder: ModelMixin | None) -> None:
    """Raise ConfigError for a guide that does not read, predict and encode what the denoiser does."""
    config = recipe.denoiser
    assert config.guide is not None
    name = f"denoiser guide {config.guide.model}"
    if autoencoder is None:
        raise ConfigError(f"{name}: needs its own autoencoder; name the guide as pretrained_autoencoder, too")
    if guide.denoiser.student is not None:
        raise ConfigError(f"{name}: is a distilled model, which cannot guide; name its teacher")
    for key in ("conditioning", "objective"):
        if guide.denoiser.config[key] != getattr(config, key):
            raise ConfigError(
                f"{name}: has {key} {guide.denoiser.config[key]}, the recipe needs {getattr(config, key)}; name a "
                "model that was trained like this one"
            )
    if not same_latents(guide.autoencoder, autoencoder):
        raise ConfigError(f"{name}: has another autoencoder; name a model that was trained with the same one")


def _check_types(table: TissueTable, teacher: HistoloomPipeline) -> None:
    """Raise ConfigError where an id means one tissue to the teacher and another, or none, in the data."""
    known = {tissue.id: tissue.name for tissue in teacher.table.types}
    for tissue in table.types:
        if known.get(tissue.id) != tissue.name:
            raise ConfigError(
                f"type {tissue.id} is {tissue.name!r} in the data, and {known.get(tissue.id, 'unknown')!r} to the "
                "teacher; distill on data with the tissue table of the teacher"
            )
    if missing := [name for number, name in known.items() if number not in table.ids]:
        raise ConfigError(
            f"the teacher knows {missing[0]!r}, and the data do not, so the student would not learn to draw it; "
            "distill on data with the tissue table of the teacher"
        )


def _check_window(recipe: Recipe, edge: int, factor: int) -> None:
    window = recipe.denoiser.window
    if window > edge:
        raise ConfigError(f"denoiser window {window} is larger than the patches of {edge} px; lower it")
    cell = max(8, factor) * 2 ** (len(recipe.denoiser.channels) - 1)
    largest = (edge - factor + 1) // factor * factor
    if window % cell or window > largest:
        raise ConfigError(
            f"denoiser window {window} must be a multiple of {cell} px, and at most {largest} px for patches of "
            f"{edge} px"
        )
