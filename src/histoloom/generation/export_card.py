"""The card of exported patches, and the license that they inherit."""

from html import unescape
from pathlib import Path

from histoloom import files
from histoloom.license import UNKNOWN, License
from histoloom.models.card import card_template
from histoloom.tissue import TissueTable
from histoloom.version import VERSION

_HEADER = """task_categories:
- image-segmentation
{% if kind == "huggingface" %}
configs:
- config_name: default
  data_files:
  - split: train
    path: data/train-*.parquet
{% endif %}
"""
_TEMPLATE = card_template(
    """
{{ count }} synthetic H&E patches with the maps that they were woven from, exported by Histoloom {{ version }}. No patch
shows a patient; a patch may resemble the crops that it was woven from.

| {{ id_title }} | tissue | color |
|---|---|---|
{% for tissue in rows %}
| {{ tissue[0] }} | {{ tissue[1]|replace("|", "\\\\|") }} | `{{ tissue[2] }}` |
{% endfor %}

{{ about|safe }}

## License

Inherited from the model: {{ license.sentence }}
""",
    _HEADER,
)
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


def read_license(folder: Path) -> License:
    """The license in the card of woven patches; older cards name the author in the text alone."""
    found, path = License.of_card(folder), folder / "README.md"
    if found == UNKNOWN or found.attribution:
        return found
    text = path.read_text(encoding="utf-8").partition("\n## License\n")[2].split("\n## ")[0]
    return License(found.name, unescape(text.partition("Attribution: ")[2]))


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
