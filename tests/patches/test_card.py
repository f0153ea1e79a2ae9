import datasets
import numpy as np
import pytest

from histoloom.license import License
from histoloom.patches.card import card_text, summarize, write_card
from histoloom.patches.store import encode_png, write_shards
from histoloom.tissue import TissueTable, TissueType

TABLE = TissueTable((TissueType(0, "stroma", "#112233"), TissueType(2, "gland | duct", "#445566")))
RECORD = {
    "name": "my patches",
    "version": "0.1.0",
    "command": "import",
    "config": {"trim": 2, "size": None, "unlabelled": []},
    "notes": ["3.5 % of the pixels lie in no patch"],
}


def row(split: str, case: str, fractions: list[float]) -> dict:
    pixels = np.full((8, 8, 3), 200, np.uint8)
    return {
        "image": encode_png(pixels),
        "semantic_map": encode_png(np.zeros((8, 8), np.uint8)),
        "source": "a.png",
        "x": 0,
        "y": 0,
        "size": 8,
        "mpp": 0.5,
        "fractions": fractions,
        "entropy": 0.0,
        "case": case,
        "split": split,
    }


@pytest.fixture
def folder(tmp_path):
    """Three patches to train on, one to validate on."""
    (tmp_path / "tissue.toml").write_text(TABLE.to_toml())
    train = [row("train", "a", [1, 0, 0]), row("train", "a", [0.5, 0, 0.5]), row("train", "b", [0.75, 0, 0.25])]
    write_shards([row("val", "c", [0, 0, 1])], TABLE, tmp_path, "val")
    write_shards(train, TABLE, tmp_path, "train")
    return tmp_path


def test_counts_come_from_the_shards(folder):
    train, val = summarize(folder)
    assert (train.name, train.patches, train.cases, train.sizes, train.mpp) == ("train", 3, 2, (8,), (0.5,))
    assert (val.name, val.patches, val.cases) == ("val", 1, 1)
    np.testing.assert_allclose(train.share, [0.75, 0, 0.25])
    assert train.holding.tolist() == [3, 0, 2]
    assert train.mixed == 2


def test_the_card_tables_splits_and_types(folder):
    text = card_text(summarize(folder), TABLE, RECORD)
    assert "| train | 3 | 2 | 67 % |" in text
    assert "| val | 1 | 1 | 0 % |" in text
    assert "| 0 | stroma | `#112233` | 3 | 75.0 % | 0 | 0.0 % |" in text
    assert "| 2 | gland \\| duct | `#445566` | 2 | 25.0 % | 1 | 100.0 % |" in text
    assert "4 H&E patches with pixel-exact tissue maps, 8 x 8 px, 0.5 um per pixel." in text


def test_the_card_tells_how_the_dataset_was_made(folder):
    text = card_text(summarize(folder), TABLE, RECORD)
    assert "Histoloom 0.1.0" in text
    assert "- trim: `2`" in text
    assert "- 3.5 % of the pixels lie in no patch" in text
    assert "unlabelled: `" not in text
    assert "size: `" not in text


def test_the_hub_reads_the_header_and_finds_every_split(folder):
    write_card(folder, summarize(folder), RECORD | License("cc-by-4.0", 'Doe: "a study"').said())
    opened = datasets.load_dataset(str(folder), cache_dir=str(folder / "cache"))
    assert {split: len(rows) for split, rows in opened.items()} == {"train": 3, "val": 1}
    header = datasets.load_dataset_builder(str(folder), cache_dir=str(folder / "cache"))
    assert header.config.name == "default"
    text = (folder / "README.md").read_text()
    assert text.startswith('---\npretty_name: "my patches"\nlicense: "cc-by-4.0"\n')
    assert License.of_card(folder) == License("cc-by-4.0", 'Doe: "a study"')
    assert '## License\n\ncc-by-4.0. Attribution: Doe: "a study"\n' in text
