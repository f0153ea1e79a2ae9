"""What a recipe may say beyond the smoke recipe: whom to watch with, and what to begin with."""

import contextlib
import re
import shutil
import socket
from dataclasses import replace

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from histoloom.conditioning.likeness import CopyLimitConfig
from histoloom.errors import ConfigError, ModelError, OutputError
from histoloom.experiments.data import open_dataset
from histoloom.experiments.plan import plan_recipe
from histoloom.experiments.recipe import DataSource, Watch, read_recipe
from histoloom.experiments.run import open_run, run_recipe, write_settings
from histoloom.experiments.stages import save_model
from histoloom.license import License
from histoloom.models.pipeline import HistoloomPipeline
from histoloom.patches.bright import LumenRules
from histoloom.patches.dataset import read_description
from histoloom.patches.folder import FolderImport, find_pictures
from histoloom.patches.importer import import_pictures
from histoloom.patches.rules import SlideDataset
from histoloom.patches.store import read_table
from histoloom.progress import silent
from histoloom.recipes import FOLDER as RECIPES
from histoloom.tissue import TissueTable

RECIPE = """
{first}
[data]
source = "images"
maps = "maps"
tissue = "tissue.toml"
license = "cc-by-4.0"
attribution = "Doe: a study"

[autoencoder]
size = 32
model = {{ latent_channels = 4, channels = [8, 8, 16], encoder_blocks = [1, 1, 1], decoder_blocks = [1, 1, 1] }}
loop = {{ steps = 3, batch_size = 2, workers = 0 }}

[denoiser]
window = 32
views = 1
channels = [32, {channels}]
blocks = [1, 1]
crops = {{ base = 24, largest = 32 }}
loop = {{ steps = 3, batch_size = 2, workers = 0, learning_rate = {rate} }}

[watch]
patches = 2
steps = 2
{watch}

[copy_limit]
pairs = {pairs}
"""


def train(
    folder,
    name: str,
    first: str = "",
    channels: int = 64,
    watch: str = "map_fidelity = false",
    rate: float = 1e-2,
    pairs: int = 0,
) -> HistoloomPipeline:
    values = {"first": first, "channels": channels, "watch": watch, "rate": rate, "pairs": pairs}
    (folder / f"{name}.toml").write_text(RECIPE.format(**values))
    recipe = read_recipe(folder / f"{name}.toml")
    return HistoloomPipeline.load(run_recipe(recipe, folder / name))


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("name", ["ebhi-seg", "ebhi-seg-htd", "ebhi-seg-gpu"])
def test_the_recipes_of_the_bundled_model_train_small_on_other_pictures(image_folder, trained, name):
    shipped = read_recipe(RECIPES / f"{name}.toml", image_folder)
    loop = replace(shipped.denoiser.loop, steps=2, batch_size=2, workers=0)
    crops = replace(shipped.denoiser.crops, base=24, largest=32)
    denoiser = replace(shipped.denoiser, window=32, views=1, channels=(32, 64), blocks=(1, 1), crops=crops, loop=loop)
    decoder = shipped.decoder and replace(shipped.decoder, size=32, channels=8, loop=loop)
    lumens = shipped.data.lumens and replace(shipped.data.lumens, contrast=0.0, brightness=0.7)
    recipe = replace(
        shipped,
        data=DataSource(source="images", maps="maps", tissue="tissue.toml", lumens=lumens),
        decoder=decoder,
        denoiser=denoiser,
        watch=Watch(patches=2, steps=2, map_fidelity=False),
        copy_limit=CopyLimitConfig(pairs=60, quantile=0.8),
        pretrained_autoencoder="first/model/autoencoder",
    )
    with contextlib.chdir(image_folder):
        model = HistoloomPipeline.load(run_recipe(recipe, image_folder / name))
    assert model.denoiser.config.conditioning == shipped.denoiser.conditioning
    assert model.denoiser.config.objective == shipped.denoiser.objective
    # What copies on purpose has no limit.
    assert (model.config.copy_limit is None) == (shipped.denoiser.conditioning == "crops-in-place")


def test_a_model_saved_anew_survives_what_a_killed_run_left(image_folder, trained):
    (image_folder / "first" / ".model.old" / "denoiser").mkdir(parents=True)
    (image_folder / "first" / "model" / "mark").write_text("old")
    (image_folder / "first" / "model" / "crops").mkdir()
    again = train(image_folder, "first")
    assert same(again.denoiser, trained.denoiser)
    assert sorted(p.name for p in (image_folder / "first").glob("*model*")) == ["model"]
    assert (image_folder / "first" / "model" / "crops").is_dir()  # a bank of these very weights


def test_a_run_takes_other_names_of_its_types_and_refuses_other_ids(image_folder):
    def begin(names: list[str]) -> None:
        shutil.rmtree(image_folder / "patches", ignore_errors=True)
        pictures = find_pictures(image_folder / "images", image_folder / "maps", FolderImport())
        import_pictures(pictures, TissueTable.from_names(names), FolderImport(), image_folder / "patches")
        recipe = read_recipe(image_folder / "r.toml")
        write_settings(open_run(recipe, image_folder / "run", silent)[0])

    (image_folder / "r.toml").write_text(
        '[data]\ndataset = "patches"\n[autoencoder]\nsize = 32\n[denoiser]\nwindow = 64\n'
    )
    begin(["stroma", "glnad"])
    begin(["stroma", "gland"])
    with pytest.raises(OutputError, match=r"run: has begun with id 0 for 'stroma', which is 1 in the tissue\.toml of"):
        begin(["gland", "stroma"])


@pytest.fixture
def trained(image_folder):
    return train(image_folder, "first")


def test_a_model_saved_again_gets_new_names_of_its_types_and_gives_up_its_bank(make_pipeline, tmp_path):
    made, folder = make_pipeline(), tmp_path / "model"
    parts = (made.denoiser, made.autoencoder)
    save_model(*parts, TissueTable.from_names(["stroma", "glnad", "tumour"]), folder, mpp=0.5)
    (folder / "crops").mkdir()
    save_model(*parts, TissueTable.from_names(["stroma", "glnad", "tumour"]), folder, mpp=0.5)
    assert (folder / "crops").is_dir()
    before = HistoloomPipeline.load(folder).fingerprint
    save_model(*parts, TissueTable.from_names(["stroma", "gland", "tumour"]), folder, mpp=0.25)
    after = HistoloomPipeline.load(folder)
    assert (after.fingerprint, after.table.names, after.mpp) == (before, ["stroma", "gland", "tumour"], 0.25)
    assert not (folder / "crops").exists()
    assert (tmp_path / f"crops-of-{before[:12]}").is_dir()


def test_a_decoder_is_trained_further_and_its_latents_stay(image_folder, trained):
    lines = "[decoder]\nsize = 32\nchannels = 8\nloop = { steps = 3, batch_size = 2, workers = 0 }"
    sharper = train(image_folder, "second", f'initial_model = "first/model"\n{lines}', rate=1e-12)
    assert same(sharper.denoiser, trained.denoiser)
    assert same(sharper.autoencoder.encoder, trained.autoencoder.encoder)
    assert not same(sharper.autoencoder.decoder, trained.autoencoder.decoder)
    curves = EventAccumulator(str(image_folder / "second" / "tensorboard"))
    curves.Reload()
    assert {"decoder/pixels", "decoder/discriminator", "decoder/realism"} <= set(curves.Tags()["scalars"])


def test_a_longer_decoder_leaves_the_denoiser_and_a_longer_autoencoder_would_lose_it(image_folder):
    constant = "steps = {}, schedule = 'constant', batch_size = 2, workers = 0"
    text = RECIPE.format(first="", channels=64, watch="map_fidelity = false", rate=1e-2, pairs=0)
    text = text.replace("steps = 3, batch_size = 2, workers = 0 }", constant.format(3) + " }", 1)
    text += f"[decoder]\nsize = 32\nchannels = 8\nloop = {{ {constant.format(2)} }}\n"

    def trained(text: str) -> HistoloomPipeline:
        (image_folder / "mine.toml").write_text(text)
        return HistoloomPipeline.load(run_recipe(read_recipe(image_folder / "mine.toml"), image_folder / "run"))

    first, longer = trained(text), trained(text.replace(constant.format(2), constant.format(3)))
    assert same(first.denoiser, longer.denoiser)
    assert not same(first.autoencoder.decoder, longer.autoencoder.decoder)
    kept = (image_folder / "run" / "autoencoder" / "checkpoint.safetensors").read_bytes()
    with pytest.raises(OutputError, match="its autoencoder has 3 of 4 steps, and its decoder learned 3 steps on it"):
        trained(text.replace(constant.format(3), constant.format(4)))
    assert (image_folder / "run" / "autoencoder" / "checkpoint.safetensors").read_bytes() == kept


def test_each_checkpoint_is_looked_at_and_read_by_a_segmenter(image_folder):
    train(image_folder, "run", watch="segmenter = { steps = 2, batch_size = 2, size = 64 }")
    run = image_folder / "run"
    assert [path.name for path in (run / "samples").iterdir()] == ["000003.png"]
    curves = EventAccumulator(str(run / "tensorboard"))
    curves.Reload()
    fidelity = curves.Scalars("denoiser/map_fidelity_iou")
    assert [(event.step, 0 <= event.value <= 1) for event in fidelity] == [(3, True)]
    assert {"denoiser/loss", "denoiser/waiting_for_data", "autoencoder/loss"} <= set(curves.Tags()["scalars"])
    assert "woven" in curves.Tags()["images"]


def test_a_training_says_at_its_start_which_types_no_patch_shows(image_folder):
    def say(line: str) -> None:
        raise RuntimeError(line)  # nothing need be trained

    table = image_folder / "tissue.toml"
    table.write_text(table.read_text() + '\n[[tissue]]\nid = 2\nname = "tumour"\n')
    values = {"first": "", "channels": 64, "watch": "map_fidelity = false", "rate": 1e-2, "pairs": 0}
    (image_folder / "r.toml").write_text(RECIPE.format(**values))
    with pytest.raises(RuntimeError, match="no patch to train on shows tumour: the model learns nothing about it"):
        run_recipe(read_recipe(image_folder / "r.toml"), image_folder / "run", say=say)


def test_an_initial_model_beside_the_recipe_is_where_training_begins(image_folder, trained):
    further = train(image_folder, "second", 'initial_model = "first/model"', rate=1e-12)
    assert same(further.autoencoder, trained.autoencoder)
    assert same(further.denoiser, trained.denoiser)
    trained_on = train(image_folder, "third", 'initial_model = "first/model"')
    assert not same(trained_on.denoiser, trained.denoiser)


def test_a_pretrained_autoencoder_beside_the_recipe_is_taken_as_it_is(image_folder, trained):
    fresh = train(image_folder, "second", 'pretrained_autoencoder = "first/model/autoencoder"', rate=1e-12)
    assert same(fresh.autoencoder, trained.autoencoder)
    assert not same(fresh.denoiser, trained.denoiser)


def test_a_window_that_does_not_fit_a_pretrained_autoencoder_is_refused_before_any_work(image_folder, trained):
    first = 'pretrained_autoencoder = "first/model/autoencoder"'
    text = RECIPE.format(first=first, channels=64, watch="map_fidelity = false", rate=0.01, pairs=0)
    (image_folder / "odd.toml").write_text(text.replace("window = 32", "window = 40"))
    with pytest.raises(ConfigError, match="denoiser window 40 must be a multiple of 16 px"):
        run_recipe(read_recipe(image_folder / "odd.toml"), image_folder / "odd")
    assert not list(image_folder.glob("odd/*/"))


def test_an_initial_model_of_another_architecture_is_refused(image_folder, trained):
    with pytest.raises(ModelError, match=r"first/model: has channels \(32, 64\), the recipe needs \(32, 96\)"):
        train(image_folder, "second", 'initial_model = "first/model"', channels=96)


def test_a_recipe_outlines_lumens_first_and_may_hide_them(image_folder):
    values = {"first": "", "channels": 64, "watch": "map_fidelity = false", "rate": 0.01, "pairs": 0}
    text = RECIPE.format(**values).replace("window = 32", 'window = 32\nhidden = ["lumen or glass"]')
    text = text.replace('tissue = "tissue.toml"', 'tissue = "tissue.toml"\nlumens = { contrast = 0, brightness = 0.7 }')
    (image_folder / "mine.toml").write_text(text)
    recipe = read_recipe(image_folder / "mine.toml")
    assert "lumens and their dataset" in plan_recipe(recipe, image_folder / "run").unknown
    model = HistoloomPipeline.load(run_recipe(recipe, image_folder / "run"))
    assert model.table.names == ["stroma", "gland", "lumen or glass"]
    assert read_table(image_folder / "run" / "outlined") == model.table
    assert (image_folder / "run" / "outlined" / "lumens.jpg").is_file()
    odd = text.replace('hidden = ["lumen or glass"]', 'hidden = ["stroma", "gland", "lumen or glass"]')
    (image_folder / "odd.toml").write_text(odd)
    with pytest.raises(ConfigError, match="hidden names all types, so maps would show none"):
        run_recipe(read_recipe(image_folder / "odd.toml"), image_folder / "odd")
    assert not list(image_folder.glob("odd/*/"))


def test_the_dataset_of_a_recipe_says_which_files_it_left_out(image_folder):
    shutil.copy(image_folder / "maps" / "P0" / "0.png", image_folder / "maps" / "P0" / "more.png")
    data = DataSource(
        source=str(image_folder / "images"), maps=str(image_folder / "maps"), tissue=str(image_folder / "tissue.toml")
    )
    made = read_description(open_dataset(data, image_folder / "run"))
    assert made["notes"] == ["1 map belongs to no image: more.png"]


def test_lumens_of_slides_need_the_pixels_of_patches():
    slides = {"slides": "slides", "tissue": "tissue.toml", "lumens": LumenRules()}
    with pytest.raises(ConfigError, match=r"set `cut\.pixels = true`, or leave lumens out"):
        DataSource(**slides)
    assert DataSource(**slides, cut=SlideDataset(pixels=True)).lumens == LumenRules()


def test_data_is_a_dataset_or_pictures(image_folder):
    (image_folder / "both.toml").write_text('[data]\ndataset = "a"\nsource = "images"\ntissue = "tissue.toml"\n')
    with pytest.raises(ConfigError, match=r"both\.toml data: "):
        read_recipe(image_folder / "both.toml")
    (image_folder / "license.toml").write_text('[data]\ndataset = "a"\nlicense = "mit"\n')
    with pytest.raises(
        ConfigError, match=r"license\.toml data: license and attribution are those of the dataset; leave"
    ):
        read_recipe(image_folder / "license.toml")


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("window = 32", "window = 96", "denoiser window 96 is larger than the patches of 80 px"),
        ("window = 32", "window = 40", "denoiser window 40 must be a multiple of 16 px, and at most 72 px"),
        ("[autoencoder]\nsize = 32", "[autoencoder]\nsize = 96", "smaller than autoencoder size 96"),
        ("channels = [32, 64]", "channels = [32, 60]", "multiples of 32"),
        ("learning_rate = 0.01", "learning_rate = nan", "learning_rate is nan; give a finite number"),
        ("views = 1", "views = -3", "views -3 must be in 1 to 4096"),
        (
            "patches = 2\nsteps = 2",
            "patches = 2\nsteps = 2000",
            "watch: steps is 2000; give a whole number from 1 to 1000",
        ),
        ("[autoencoder]\nsize = 32", "[autoencoder]\nsize = 0", "size 0 must be a multiple of 16"),
        ("[watch]", "[decoder]\nsize = 36\n[watch]", "decoder size 36 must be a multiple of 8 px"),
        (
            "[watch]",
            "[decoder]\nsize = 32\nloop = { batch_size = 3, accumulate = 2 }\n[watch]",
            "decoder loop: batch_size 3 does not divide into 1 processes x 2 parts",
        ),
        (
            "batch_size = 2, workers = 0, learning_rate",
            "batch_size = 2, accumulate = 4, workers = 0, learning_rate",
            "denoiser loop: batch_size 2 does not divide into 1 processes x 4 parts",
        ),
    ],
)
def test_a_recipe_that_cannot_work_is_refused_before_any_work(image_folder, old, new, reason):
    values = {"first": "", "channels": 64, "watch": "map_fidelity = false", "rate": 0.01, "pairs": 0}
    text = RECIPE.format(**values)
    assert old in text
    (image_folder / "odd.toml").write_text(text.replace(old, new))
    with pytest.raises(ConfigError, match=re.escape(reason)):
        run_recipe(read_recipe(image_folder / "odd.toml"), image_folder / "odd")
    assert not list(image_folder.glob("odd/*/"))


def test_a_trained_model_says_where_it_comes_from_and_nobody_elses_secrets(image_folder, trained):
    run = image_folder / "first"
    card = (run / "model" / "README.md").read_text()
    assert re.search(r"\n[1-9] patches of [12] cases \(split `train`\), 80 px", card)
    assert "| 1 | gland |" in card
    assert "Nothing was measured yet" in card
    assert "License of the data: cc-by-4.0. Attribution: Doe: a study" in card
    assert License.of_card(run / "model") == License("cc-by-4.0", "Doe: a study")
    private = [str(image_folder), socket.gethostname()]
    for path in run.rglob("*"):
        assert not any(name in path.name for name in private)
        if path.suffix in (".json", ".toml", ".md"):
            assert not any(name in path.read_text() for name in private), path


def test_another_recipe_is_refused_in_the_same_folder(image_folder, trained):
    before = {path: path.stat().st_mtime_ns for path in (image_folder / "first").rglob("*")}
    with pytest.raises(
        OutputError, match=r"made by another run \(denoiser\.channels was \[32, 64\], is now \[32, 96\]"
    ):
        train(image_folder, "first", channels=96)
    assert {path: path.stat().st_mtime_ns for path in (image_folder / "first").rglob("*")} == before
