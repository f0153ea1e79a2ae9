import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from histoloom.cli.patches import import_folder
from histoloom.errors import ConfigError, ImageError, InputError, OutputError, TissueError
from histoloom.license import License
from histoloom.patches.dataset import read_description
from histoloom.patches.store import load_patches
from histoloom.tissue import TissueTable

app = typer.Typer(pretty_exceptions_enable=False)
app.command("import")(import_folder)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with six images of three cases, their maps and a tissue table, in which the command runs."""
    for kind in ("images", "maps"):
        (tmp_path / kind).mkdir()
    for index in range(6):
        pixels = np.random.default_rng(index).integers(0, 256, (20, 20, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"p{index // 2}_{index}.png")
        Image.fromarray(pixels[..., 0] % 2).save(tmp_path / "maps" / f"p{index // 2}_{index}.png")
    (tmp_path / "tissue.toml").write_text(TissueTable.from_names(["stroma", "gland"]).to_toml())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*options: str, source: str = "images") -> str:
    arguments = [source, "--tissue", "tissue.toml", "--out", "out", *options]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


CASES = ("--case-pattern", "^(p[0-9])_", "--val-share", "0.34")


def test_an_image_folder_becomes_a_dataset(project):
    told = run("--maps", "maps", "--trim", "2", "--size", "8", "--mpp", "0.5", *CASES)
    assert "train: 16 patches of 2 cases" in told
    assert "val: 8 patches of 1 case" in told
    train = load_patches(project / "out", "train")
    assert train.images.shape == (16, 8, 8, 3)
    assert set(train.mpp) == {0.5}


def test_a_manifest_becomes_a_dataset(project):
    names = [f"p{index // 2}_{index}.png" for index in range(6)]
    rows = [f"images/{name},maps/{name},{name[:2]},{'val' if name[1] == '1' else 'train'}" for name in names]
    (project / "manifest.csv").write_text("\n".join(["image,map,case_id,split", *rows]))
    run(source="manifest.csv")
    assert load_patches(project / "out", "val").sources == ["images/p1_2.png", "images/p1_3.png"]


def test_the_same_command_again_does_nothing(project):
    run("--maps", "maps", *CASES)
    before = {path: path.stat().st_mtime_ns for path in (project / "out").rglob("*")}
    assert "out is up to date" in run("--maps", "maps", *CASES)
    assert {path: path.stat().st_mtime_ns for path in (project / "out").rglob("*")} == before


def test_another_command_asks_for_another_folder(project):
    run("--maps", "maps", *CASES)
    with pytest.raises(OutputError, match=r"out: was made by another run \(config\.trim was 0, is now 1\)"):
        run("--maps", "maps", "--trim", "1", *CASES)


@pytest.mark.parametrize(
    ("options", "error"),
    [(("--unlabelled", "1"), TissueError), (("--trim", "10"), ImageError), (("--val-share", "2"), ConfigError)],
)
def test_a_mistake_is_one_error_and_no_output(project, options, error):
    with pytest.raises(error):
        run("--maps", "maps", *CASES, *options)
    assert not list(project.glob("out*"))


def test_a_named_value_is_unlabelled(project):
    aliases = '[[tissue]]\nid = 0\nname = "gland"\naliases = ["1"]\n'
    (project / "tissue.toml").write_text(aliases)
    run("--maps", "maps", "--unlabelled", "0", *CASES)
    assert set(np.unique(load_patches(project / "out", "train").semantic_maps)) == {0, 255}


def test_a_type_that_never_occurs_while_255_is_common_is_loud(project):
    for path in (project / "maps").iterdir():
        Image.fromarray(np.asarray(Image.open(path)) * np.uint8(255)).save(path)
    said = run("--maps", "maps", *CASES)
    assert "no patch holds 'gland'; 255 (white) is in 6 of 6 maps and counts as unlabeled" in said
    assert "| 1 | gland |" in said


def test_files_that_are_not_taken_are_counted(project):
    (project / "images" / "note.gif").write_bytes(b"GIF89a")
    (project / "store").mkdir()
    (project / "images" / "more").symlink_to(project / "store")
    (project / "maps" / "extra.png").write_bytes((project / "maps" / "p0_0.png").read_bytes())
    said = run("--maps", "maps", *CASES)
    assert "1 files are not images that can be opened: note.gif" in said
    assert "1 linked folders were not entered (name them, or copy their files): more" in said
    assert "1 map belongs to no image: extra.png" in said


def test_a_manifest_may_name_files_of_another_folder(project):
    (project / "lists").mkdir()
    rows = [f"images/p{i // 2}_{i}.png;maps/p{i // 2}_{i}.png" for i in range(6)]
    (project / "lists" / "m.csv").write_text("\n".join(["image;map", *rows]), encoding="utf-16")
    run("--root", ".", *CASES, source="lists/m.csv")
    assert len(load_patches(project / "out", "train")) == 4
    (project / "lists" / "m.csv").write_text("image,map\n../secret.png,maps/p0_0.png\n")
    with pytest.raises(InputError, match="leads out of"):
        run("--root", "images", source="lists/m.csv")


def test_bmp_and_jpeg_2000_images_are_imported(project):
    for index, path in enumerate(sorted((project / "images").iterdir())):
        with Image.open(path) as picture:
            picture.resize((64, 64)).save(path.with_suffix(".bmp" if index % 2 else ".jp2"))
        path.unlink()
    for path in (project / "maps").iterdir():
        with Image.open(path) as picture:
            picture.resize((64, 64), Image.Resampling.NEAREST).save(path)
    run("--maps", "maps", *CASES)
    assert len(load_patches(project / "out", "train")) == 4


def test_the_mpp_is_in_every_row_and_the_card(project):
    run("--maps", "maps", "--mpp", "0.25", *CASES)
    assert set(load_patches(project / "out", "train").mpp) == {0.25}
    assert "0.25 um per pixel" in (project / "out" / "README.md").read_text()


def test_another_license_than_a_finished_dataset_has_is_refused(project):
    words = ("--maps", "maps", *CASES)
    run(*words, "--license", "cc-by-4.0")
    assert "up to date" in run(*words)
    assert "up to date" in run(*words, "--license", "cc-by-4.0")
    with pytest.raises(OutputError, match=r"was made with license 'cc-by-4\.0', not 'cc0-1\.0'; remove the folder"):
        run(*words, "--license", "cc0-1.0")


def test_whom_to_name_is_in_description_and_card(project):
    words = ("--maps", "maps", *CASES, "--license", "cc-by-4.0")
    run(*words, "--attribution", "Doe et al.\n2023")
    said = License("cc-by-4.0", "Doe et al. 2023")
    assert said == License.of(read_description(project / "out")) == License.of_card(project / "out")
    assert "up to date" in run(*words)
    with pytest.raises(OutputError, match=r"was made with attribution 'Doe et al\. 2023', not 'Roe'"):
        run(*words, "--attribution", "Roe")
