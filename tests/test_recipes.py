"""Recipes of the package: found by name, listed, copied, and said where their data are."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from histoloom.cli.main import app
from histoloom.errors import ConfigError, OutputError
from histoloom.experiments.recipe import read_recipe, save_recipe
from histoloom.models.autoencoder import latent_channels, load_autoencoder
from histoloom.models.pipeline import HistoloomPipeline
from histoloom.recipes import FOLDER, copy_recipe, describe, find_recipe, recipe_names
from histoloom.tissue import TissueTable

TABLES = sorted(FOLDER.glob("*.tissue.toml"))


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_is_found_by_name_and_reads(name, tmp_path):
    recipe = read_recipe(find_recipe(name), tmp_path)
    assert recipe.denoiser.loop.steps >= 1
    places = [recipe.data.dataset, recipe.data.source, recipe.data.slides]
    assert [Path(place).is_relative_to(tmp_path) for place in places if place] == [True]
    assert "--data" in find_recipe(name).read_text().split("[data]")[0], "the comment says how to run it"


@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.name)
def test_every_tissue_table_reads(path):
    assert TissueTable.load(path).names


def test_a_file_of_that_name_wins_over_the_recipe_of_the_package(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_recipe("tcga") == FOLDER / "tcga.toml"
    Path("tcga").write_text("")
    assert find_recipe("tcga") == Path("tcga")
    with pytest.raises(ConfigError, match="no such recipe; give a TOML file or one of camelyon-mini, camelyon16, "):
        find_recipe("nothing")


def test_the_command_lists_every_recipe_with_one_line():
    done = CliRunner().invoke(app, ["recipes"])
    assert done.exit_code == 0
    assert [line.split()[0] for line in done.stdout.splitlines()] == recipe_names()
    assert describe("tcga") == "TCGA: diagnostic slides without annotations"


def test_a_copy_comes_with_its_tissue_tables_and_overwrites_nothing(tmp_path):
    done = CliRunner().invoke(app, ["recipes", "--copy", "panda", "--out", str(tmp_path)])
    names = ["panda-karolinska.tissue.toml", "panda-radboud.tissue.toml", "panda.toml"]
    assert done.exit_code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    recipe = read_recipe(tmp_path / "panda.toml")
    assert recipe.data.tissue == str(tmp_path / "panda-radboud.tissue.toml")
    assert recipe.data.slides == str(tmp_path / "train_images")
    (tmp_path / "panda.toml").unlink()
    with pytest.raises(OutputError, match=r"panda-karolinska\.tissue\.toml: exists already"):
        copy_recipe("panda", tmp_path)
    assert not (tmp_path / "panda.toml").exists()


@pytest.mark.parametrize("name", recipe_names())
def test_every_copied_recipe_reads_in_another_folder_and_finds_its_models(name, tmp_path, monkeypatch):
    (tmp_path / "ebhi-seg").mkdir()  # a folder of data may have the name of a bundled model
    monkeypatch.chdir(tmp_path)
    copy_recipe(name, tmp_path)
    recipe = read_recipe(f"{name}.toml")
    if recipe.pretrained_autoencoder:
        assert latent_channels(load_autoencoder(recipe.pretrained_autoencoder)) == 20
    for model in (recipe.initial_model, recipe.reproduce.autoencoder_of):
        assert not model or latent_channels(HistoloomPipeline.load(model).autoencoder) == 20


def test_a_recipe_of_the_package_needs_to_know_where_the_data_are():
    with pytest.raises(ConfigError, match="camelyon16: needs the folder of its data; give --data"):
        read_recipe(find_recipe("camelyon16"))


def test_data_are_in_the_root_and_tables_next_to_the_recipe_or_in_the_root(tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "near.toml").write_text("")
    text = '[data]\nroot = "../data"\nsource = "manifest.csv"\ntissue = "{}"\n'
    for table, place in (("near.toml", "home"), ("far.toml", "data")):
        (tmp_path / "home" / "r.toml").write_text(text.format(table))
        data = read_recipe(tmp_path / "home" / "r.toml").data
        assert data.source == str(tmp_path / "data" / "manifest.csv")
        assert data.tissue == str(tmp_path / place / table)
        assert data.root == ""
    assert read_recipe(tmp_path / "home" / "r.toml", tmp_path / "other").data.source.endswith("other/manifest.csv")


def test_data_that_would_have_no_effect_is_refused(tmp_path):
    (tmp_path / "r.toml").write_text(f'[data]\ndataset = "{tmp_path / "patches"}"\n')
    with pytest.raises(ConfigError, match=r"names its data by absolute paths, so --data .* has no effect"):
        read_recipe(tmp_path / "r.toml", tmp_path)


def test_a_saved_recipe_reads_alike_and_makes_relative_what_is_a_path_alone(tmp_path):
    (tmp_path / "weak").mkdir()
    (tmp_path / "r.toml").write_text(
        'initial_model = "weak"\n[data]\nsource = "images"\nmaps = "/elsewhere/maps"\ntissue = "t.toml"\n'
        '[data.pictures]\ncase_pattern = "/(case[0-9]+)/"\n[denoiser.guide]\nmodel = "weak"\n'
    )
    recipe = read_recipe(tmp_path / "r.toml")
    (tmp_path / "run").mkdir()
    save_recipe(recipe, tmp_path / "run")
    text = (tmp_path / "run" / "recipe.toml").read_text()
    assert str(tmp_path) not in text
    assert 'case_pattern = "/(case[0-9]+)/"' in text  # a regular expression
    assert text.count('"../weak"') == 2
    assert read_recipe(tmp_path / "run" / "recipe.toml") == recipe
