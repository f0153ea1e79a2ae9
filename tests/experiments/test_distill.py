"""From a recipe to a student, as `histoloom distill` makes it."""

import shutil

import pytest
from huggingface_hub import constants

from histoloom.errors import ConfigError, HistoloomError
from histoloom.experiments.distill import distill_recipe
from histoloom.experiments.recipe import read_recipe
from histoloom.experiments.run import run_recipe
from histoloom.license import License
from histoloom.models.pipeline import HistoloomPipeline
from histoloom.training.denoiser import DenoiserTraining
from histoloom.training.distillation import windows_of

RECIPE = """
initial_model = "teacher"

[data]
source = "images"
maps = "maps"
tissue = "tissue.toml"

[denoiser]
window = 64
views = 1

[distillation]
steps = [1, 2]
points = 2
loop = { steps = 2, batch_size = 2, workers = 0 }

[watch]
patches = 1
steps = 2
map_fidelity = false
"""
TYPES = '[[tissue]]\nid = 0\nname = "stroma"\n\n[[tissue]]\nid = 1\nname = "GLAND"\n'


@pytest.fixture
def folder(image_folder, make_pipeline):
    """Pictures, and a teacher with a bank of crops."""
    make_pipeline().save_pretrained(str(image_folder / "teacher"))
    (image_folder / "tissue.toml").write_text(HistoloomPipeline.load(image_folder / "teacher").table.to_toml())
    (image_folder / "teacher" / "crops").mkdir()
    (image_folder / "teacher" / "crops" / "crop.png").write_bytes(b"a crop")
    return image_folder


def distill(folder, recipe: str = RECIPE):
    (folder / "d.toml").write_text(recipe)
    return distill_recipe(read_recipe(folder / "d.toml"), folder / "run")


def test_a_recipe_becomes_a_student_that_says_what_it_is(folder, monkeypatch):
    (folder / "teacher" / "README.md").write_text("---\nlicense: cc-by-4.0\nattribution: 'Doe: a study'\n---\n")
    hub = folder / "hub" / "models--someone--teacher"
    (hub / "refs").mkdir(parents=True)
    (hub / "refs" / "main").write_text("abc")
    shutil.copytree(folder / "teacher", hub / "snapshots" / "abc")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder / "hub"))
    model = distill(folder, RECIPE.replace('"teacher"', '"someone/teacher"'))
    student = HistoloomPipeline.load(model)
    assert student.denoiser.student.steps == (1, 2)
    assert student.table == HistoloomPipeline.load(folder / "teacher").table
    assert (model / "crops" / "crop.png").read_bytes() == b"a crop"
    card = (model / "README.md").read_text()
    assert "method `average`, for 1, 2 steps; map guidance 1.0 to 2.0, crop guidance 1.0 to 4.0" in card
    assert "FewStepScheduler, 2 steps" in card
    assert "License of `teacher`, whose weights it goes on from: cc-by-4.0. Attribution: Doe: a study" in card
    assert License.of_card(model) == License("unknown and cc-by-4.0", "Doe: a study")
    assert "4 windows of 64 px, seed 0, distilled from `teacher`" in card
    written = [path for path in model.rglob("*") if path.suffix in (".json", ".md")]
    assert not [path for path in written if str(folder) in path.read_text()]


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ('initial_model = "teacher"\n', "", "a distillation needs a teacher"),
        (RECIPE[RECIPE.index("[distillation]") : RECIPE.index("[watch]")], "", "no table"),
        ('points = 2', 'points = 1\nmethod = "policy"', "points is 1"),
        ("steps = 2\nmap_fidelity", "steps = 3\nmap_fidelity", "steps is 3; this model was distilled for 1, 2"),
        ("steps = [1, 2]", "steps = []", r"steps is \[\]"),
        ("[distillation]", "[decoder]\n\n[distillation]", r"\[decoder\] has no effect"),
        ('"teacher"\n', '"teacher"\npretrained_autoencoder = "teacher"\n', "pretrained_autoencoder has no effect"),
        ("views = 1", "views = 1\ncurriculum = {}", "curriculum has no effect"),
        ("window = 64", "window = 4096", "window"),
    ],
)  # fmt: skip
def test_a_distillation_that_cannot_work_is_refused_before_any_work(folder, old, new, reason):
    with pytest.raises(HistoloomError, match=reason):
        distill(folder, RECIPE.replace(old, new))
    assert not (folder / "run" / "dataset").exists()


def test_the_objective_is_that_of_the_teacher(folder):
    teacher = HistoloomPipeline.load(folder / "teacher").denoiser
    assert windows_of(DenoiserTraining(objective="epsilon-l1"), teacher).objective == "flow"


def test_the_watcher_takes_as_many_steps_as_the_student_knows(folder):
    distill(folder, RECIPE.replace("steps = 2\nmap_fidelity", "map_fidelity"))
    assert (folder / "run" / "samples" / "000002.png").is_file()


def test_ids_that_mean_another_tissue_to_the_teacher_are_refused(folder):
    (folder / "tissue.toml").write_text(TYPES)
    with pytest.raises(ConfigError, match="type 1 is 'GLAND' in the data, and 'gland' to the teacher"):
        distill(folder)


def test_data_that_lack_a_type_of_the_teacher_are_refused(folder):
    (folder / "tissue.toml").write_text(TYPES.replace("GLAND", "gland"))
    with pytest.raises(ConfigError, match="the teacher knows 'tumour', and the data do not"):
        distill(folder)


def test_a_student_is_not_trained_further(folder):
    distill(folder)
    lines = RECIPE.replace('"teacher"', '"run/model"')
    (folder / "further.toml").write_text(lines[: lines.index("[distillation]")] + lines[lines.index("[watch]") :])
    with pytest.raises(HistoloomError, match="run/model: is a distilled model, which cannot be trained further"):
        run_recipe(read_recipe(folder / "further.toml"), folder / "further")
    assert not (folder / "further" / "dataset").exists()


def test_training_refuses_a_recipe_of_a_distillation(folder):
    (folder / "d.toml").write_text(RECIPE)
    with pytest.raises(ConfigError, match="use `histoloom distill`"):
        run_recipe(read_recipe(folder / "d.toml"), folder / "run")
    assert not (folder / "run").exists()
