"""Runs that start from a model with other tissue types, or keep clear of one, and what they refuse."""

import re
import shutil
from pathlib import Path

import pytest
import torch
from conftest import draw_image_folder

from histoloom.errors import ConfigError, ModelError, OutputError
from histoloom.experiments.distill import distill_recipe
from histoloom.experiments.plan import describe, plan_recipe
from histoloom.experiments.recipe import read_recipe
from histoloom.experiments.reproduce import reproduce
from histoloom.experiments.run import run_recipe
from histoloom.models.pipeline import HistoloomPipeline

RECIPE = """
{first}
[data]
source = "images"
maps = "maps"
tissue = "{tissue}"
pictures = {{ {pictures} }}

[autoencoder]
size = 32
model = {{ latent_channels = {latents}, channels = [8, 8, 16], encoder_blocks = [1, 1, 1], decoder_blocks = [1, 1, 1] }}
loop = {{ steps = 2, batch_size = 2, workers = 0 }}

[denoiser]
objective = "{objective}"
window = 32
views = 1
channels = [32, 64]
blocks = [1, 1]
crops = {{ base = 24, largest = 32 }}
loop = {{ steps = 2, batch_size = 2, workers = 0, learning_rate = 1e-12 }}

[watch]
patches = 2
steps = 2
map_fidelity = false

[copy_limit]
pairs = 0

{tables}
"""
OTHER = """
[[tissue]]
id = 0
name = "gland"

[[tissue]]
id = 1
name = "stroma"

[[tissue]]
id = 3
name = "tumor"
"""
GUIDE = '[denoiser.guide]\nmodel = "first/model"\n'
FIRST = 'initial_model = "first/model"'


def train(folder, name: str, first: str = "", command=None, **changes) -> tuple[HistoloomPipeline, list[str]]:
    values = {"first": first, "tissue": "tissue.toml", "pictures": "", "latents": 4, "objective": "flow", "tables": ""}
    (folder / f"{name}.toml").write_text(RECIPE.format(**(values | changes)))
    recipe, said = read_recipe(folder / f"{name}.toml"), []
    model = command(recipe, folder / name) if command else run_recipe(recipe, folder / name, say=said.append)
    return HistoloomPipeline.load(model, torch.float32), said


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A folder of images, and the runs that recipes start from."""
    folder = draw_image_folder(tmp_path_factory.mktemp("trained"))
    (folder / "other.toml").write_text(OTHER)
    train(folder, "first", pictures="mpp = 0.5")
    train(folder, "wide", latents=8)
    train(folder, "noise", objective="epsilon-l1")
    student = "[distillation.loop]\nsteps = 1\nbatch_size = 2\nworkers = 0\n"
    train(folder, "student", FIRST, distill_recipe, tables=student)
    return folder


@pytest.fixture
def image_folder(trained, tmp_path) -> Path:
    """A copy of it."""
    return shutil.copytree(trained, tmp_path, dirs_exist_ok=True)


@pytest.fixture
def first(image_folder) -> HistoloomPipeline:
    return HistoloomPipeline.load(image_folder / "first" / "model", torch.float32)


def test_a_model_of_other_types_is_trained_further_with_its_autoencoder(image_folder, first):
    further, said = train(image_folder, "second", 'initial_model = "first/model"', tissue="other.toml")
    assert said[1].endswith(
        "first/model: tissue types matched by name: gland, stroma; new, from the mean of its types: tumor"
    )
    assert said[2].endswith("was trained at 0.5 um/px; the scale of these patches is unknown or mixed")
    before, after = first.denoiser.token_type.weight, further.denoiser.token_type.weight
    assert torch.equal(after[:2], before[[1, 0]])
    assert torch.allclose(after[2:], before.mean(0), rtol=1e-2)  # saved in bf16
    for mine, old in zip(further.autoencoder.parameters(), first.autoencoder.parameters(), strict=True):
        assert torch.equal(mine, old)
    assert not (image_folder / "second" / "autoencoder").exists()


def test_another_scale_is_said(image_folder, first):
    _, said = train(image_folder, "second", 'initial_model = "first/model"', pictures="mpp = 0.25")
    model = f"{image_folder}/first/model"
    idle = f"{model}: its autoencoder is used as it is; the table [autoencoder] has no effect"
    assert said[0] == idle
    assert said[2] == f"{model}: was trained at 0.5 um/px; these patches have 0.25 um/px"
    _, said = train(image_folder, "third", 'initial_model = "first/model"', pictures="mpp = 0.51")
    assert not any("trained at" in line for line in said)


def test_a_decoder_that_draws_another_stain_is_said_before_the_denoiser_is_trained(image_folder, first):
    _, said = train(image_folder, "second", FIRST)  # its autoencoder took two steps
    assert re.fullmatch(
        r".*first/model: decodes these patches at \d+\.\d dB, with (\d\.\d\d(, | and )?){3} of their contrast in red, "
        r"green and blue; that changes their stain: add a table \[decoder\] to the recipe, which adapts the decoder",
        said[-1],
    )
    plan = plan_recipe(read_recipe(image_folder / "second.toml"), image_folder / "elsewhere")
    assert describe(plan).splitlines()[-1] == said[-1]
    tables = "[decoder]\nsize = 32\n[decoder.loop]\nsteps = 1\nbatch_size = 2\n"
    _, said = train(image_folder, "third", FIRST, tables=tables)
    assert not any("decodes" in line for line in said)


def test_another_objective_and_other_latents_are_refused_before_any_work(image_folder, first):
    for name, line, changes, reason in (
        ("objective", "", {"objective": "epsilon-l1"}, "has objective flow, the recipe needs epsilon-l1"),
        ("latents", 'pretrained_autoencoder = "wide/model"\n', {}, "has latent channels 4, the recipe needs 8"),
    ):
        with pytest.raises(ModelError, match=f"first/model: {reason}"):
            train(image_folder, name, f'{line}initial_model = "first/model"', **changes)
        assert not list(image_folder.glob(f"{name}/*/"))


def test_a_guide_of_other_types_is_named_by_the_recipe_and_known_by_its_weights(image_folder, first):
    train(image_folder, "second", FIRST, tissue="other.toml", tables=GUIDE)
    card = (image_folder / "second" / "model" / "README.md").read_text()
    assert "from the weights of `model`, away from `model` (weight 1.75), with" in card
    (image_folder / "first").rename(image_folder / "elsewhere")
    moved = GUIDE.replace("first", "elsewhere")
    train(image_folder, "second", FIRST.replace("first", "elsewhere"), tissue="other.toml", tables=moved)
    with pytest.raises(OutputError, match="weight"):
        train(
            image_folder,
            "second",
            FIRST.replace("first", "elsewhere"),
            tissue="other.toml",
            tables=moved + "weight = 3",
        )


@pytest.mark.parametrize(
    ("line", "tables", "reason"),
    [
        ("", GUIDE, "first/model: needs its own autoencoder; name the guide as pretrained_autoencoder, too"),
        ('pretrained_autoencoder = "wide/model"', GUIDE, "first/model: has another autoencoder"),
        (FIRST, GUIDE.replace("first", "noise"), "noise/model: has objective epsilon-l1, the recipe needs flow"),
        (FIRST, GUIDE.replace("first", "student"), "student/model: is a distilled model, which cannot guide"),
        (FIRST, GUIDE + "weight = 1", "weight is 1; give a number above 1, up to 10"),
        (FIRST, "[denoiser.guide]", "model is empty; name a weaker model"),
    ],
)
def test_a_guide_that_cannot_guide_is_refused_before_any_work(image_folder, first, line, tables, reason):
    with pytest.raises(ConfigError, match=reason):
        train(image_folder, "guided", line, tables=tables)
    assert not list(image_folder.glob("guided/*/"))


@pytest.mark.parametrize("command", [distill_recipe, reproduce])
def test_commands_on_which_a_guide_has_no_effect_refuse_it(image_folder, first, command):
    with pytest.raises(ConfigError, match="denoiser guide has no effect"):
        train(image_folder, "guided", FIRST, command, tables=GUIDE + "[distillation]")
