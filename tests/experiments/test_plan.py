"""What a recipe costs, measured before it starts and in the middle of its run."""

from pathlib import Path

import pytest
from PIL import Image

from histoloom.errors import ConfigError, OutputError
from histoloom.experiments import plan as plan_module
from histoloom.experiments.plan import TrainingPlan, describe, plan_recipe
from histoloom.experiments.recipe import Recipe, read_recipe
from histoloom.experiments.run import run_recipe
from histoloom.patches.folder import find_pictures
from histoloom.recipes import FOLDER


@pytest.fixture
def recipe(image_folder) -> Recipe:
    text = (FOLDER / "smoke.toml").read_text().replace("steps = 20", "workers = 0\nsteps = 20")
    text = text.replace("[watch]", "[watch]\nmap_fidelity = false").replace("steps = 25", "steps = 1")
    (image_folder / "mine.toml").write_text(text.replace("pairs = 50", "pairs = 0"))
    return read_recipe(image_folder / "mine.toml")


def stages(plan: TrainingPlan) -> dict:
    return {stage.stage: stage for stage in plan.stages}


def test_a_plan_counts_what_the_recipe_asks_for_and_writes_nothing(recipe, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    plan = plan_recipe(recipe, tmp_path / "run")
    assert sorted(tmp_path.rglob("*")) == before
    found = stages(plan)
    assert list(found) == ["autoencoder", "decoder", "latents", "denoiser"]
    for stage in ("autoencoder", "decoder", "denoiser"):
        assert (found[stage].steps, found[stage].seen, found[stage].left) == (20, 80, 80)  # batches of 4
        assert found[stage].rate > 0
        assert found[stage].hours == pytest.approx(80 / found[stage].rate / 3600)
    assert found["latents"].left == 2 * plan.patches
    assert plan.pixels == plan.patches * 80 * 80 * 4


def test_a_plan_agrees_with_the_run_and_counts_what_is_left_of_it(recipe, tmp_path):
    before = stages(plan_recipe(recipe, tmp_path / "run"))
    run_recipe(recipe, tmp_path / "run")
    plan = plan_recipe(recipe, tmp_path / "run")
    assert all(stage.left == 0 and stage.hours == 0 for stage in plan.stages)
    for stage in ("autoencoder", "decoder", "denoiser"):
        written = (tmp_path / "run" / stage / "checkpoint.safetensors").stat().st_size
        assert before[stage].disk == pytest.approx(written, rel=0.01)
    latents = (tmp_path / "run" / "denoiser" / "latents.npy").stat().st_size
    assert before["latents"].disk == pytest.approx(latents, rel=0.01)


def test_maps_without_a_label_among_the_first_pictures_do_not_stop_a_plan(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(plan_module, "PATCHES", 2)
    whole = plan_recipe(recipe, tmp_path / "run").patches
    data = recipe.data
    found = find_pictures(Path(data.source), Path(data.maps), data.pictures)
    for picture in [picture for picture in found if picture.split == data.split][:2]:
        with Image.open(picture.map) as shown:
            Image.new("L", shown.size, 255).save(picture.map)
    assert plan_recipe(recipe, tmp_path / "run").patches == whole


def test_a_model_to_start_from_leaves_no_autoencoder_to_train(recipe, tmp_path):
    model = run_recipe(recipe, tmp_path / "first")
    text = (tmp_path / "mine.toml").read_text()
    (tmp_path / "further.toml").write_text(f'initial_model = "{model}"\n{text}')
    plan = plan_recipe(read_recipe(tmp_path / "further.toml"), tmp_path / "second")
    assert list(stages(plan)) == ["decoder", "latents", "denoiser"]


def test_a_folder_of_another_run_and_slides_that_are_not_cut_are_refused(recipe, tmp_path):
    run_recipe(recipe, tmp_path / "run")
    text = (tmp_path / "mine.toml").read_text()
    (tmp_path / "other.toml").write_text(text.replace("channels = [32, 64]", "channels = [32, 96]"))
    with pytest.raises(OutputError, match=r"denoiser\.channels was \[32, 64\], is now \[32, 96\]"):
        plan_recipe(read_recipe(tmp_path / "other.toml"), tmp_path / "run")
    (tmp_path / "slides.toml").write_text('[data]\nslides = "images"\ntissue = "tissue.toml"\n')
    with pytest.raises(ConfigError, match="how many patches its slides give is unknown"):
        plan_recipe(read_recipe(tmp_path / "slides.toml"), tmp_path / "third")


def test_the_table_shows_every_stage_and_their_sum(recipe, tmp_path):
    plan = plan_recipe(recipe, tmp_path / "run")
    lines = describe(plan).splitlines()
    assert [line.split(" | ")[0] for line in lines if line.startswith("| ")] == [
        "| stage", "| autoencoder", "| decoder", "| latents", "| denoiser", "| all",
    ]  # fmt: skip
    assert lines[-1].startswith("not measured: the import of the pictures")
