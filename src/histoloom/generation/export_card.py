"""The card of exported patches, and the license that they inherit."""

from dataclasses import dataclass
from html import unescape
from pathlib import Path

from histoloom import files
from histoloom.models.card import ModelCard, card_template
from histoloom.tissue import TissueTable
from histoloom.version import VERSION

_MOST_BYTES = 2**20
_TEMPLATE = card_template("""---
pretty_name: {{ name|yaml|safe }}
license: {{ license.name|yaml|safe }}
task_categories:
- image-segmentation
tags:
- histopathology
- synthetic
- histoloom
{% if kind == "huggingface" %}
configs:
- config_name: default
  data_files:
  - split: train
    path: data/train-*.parquet
{% endif %}
---
# {{ name }}

{{ count }} synthetic H&E patches with the maps that they were woven from, exported by Histoloom {{ version }}. No patch
shows a patient; a patch may resemble the crops that it was woven from.

| {{ id_title }} | tissue | color |
|---|---|---|
{% for tissue in rows %}
| {{ tissue[0] }} | {{ tissue[1]|replace("|", "\\\\|") }} | `{{ tissue[2] }}` |
{% endfor %}

{{ about|safe }}

## License

{{ license.text }}
""")
_ABOUT = {
    "huggingface": """Map value 255 is unlabeled.

```python
from datasets import load_dataset

patches = load_dataset("path/to/this/folder", split="train")  # image, semantic_map, and how each was made
```""",
    "coco": "`instances.json` has a mask for each connected region. In `semantic/`, a pixel is the id of its category, "
    "and 0 is unlabeled.",
    "yolo": "`labels/` has a polygon for each connected region; a slit of no width leads to each of its holes. "
    "`data.yaml` names the training images for `val`, too: name real ones instead.",
    "geojson": "Open an image in QuPath and drag its file of `annotations/` onto it. Coordinates are pixels of the "
    "image.",
}
_ID_TITLES = {"huggingface": "id", "coco": "category", "yolo": "class", "geojson": "id"}


@dataclass(frozen=True)
class License:
    """What a folder of woven patches says of its license: an identifier of the hub, and a sentence with attribution."""

    name: str
    text: str


def read_license(folder: Path) -> License:
    """The license in the card of woven patches; unknown where the folder has no card or it does not say."""
    name, path = ModelCard.read(folder).license, folder / "README.md"
    unknown = License(name, f"The license of the model: {name}.")
    try:
        if path.stat().st_size > _MOST_BYTES:
            return unknown
        _, found, rest = path.read_text(encoding="utf-8").partition("\n## License\n")
    except (OSError, ValueError):
        return unknown
    text = unescape(" ".join(rest.split("\n## ")[0].split()))
    return License(name, text) if found and text else unknown


def write_card(aside: Path, kind: str, count: int, table: TissueTable, license: License) -> None:
    """Write `README.md` of an export; raises OutputError."""
    first = {"coco": lambda at, tissue: tissue.id + 1, "yolo": lambda at, tissue: at}
    number = first.get(kind, lambda at, tissue: tissue.id)
    text = _TEMPLATE.render(
        name=f"{count} woven patches",
        kind=kind,
        count=count,
        license=license,
        version=VERSION,
        id_title=_ID_TITLES[kind],
        rows=[(number(at, tissue), tissue.name, tissue.color) for at, tissue in enumerate(table.types)],
        about=_ABOUT[kind],
    )
    files.write_text(aside / "README.md", text)
