"""The card of a folder of woven patches: what it holds, what it was made with, and whose license it inherits."""

from pathlib import Path

from histoloom import files
from histoloom.generation.delivered import describe_delivered
from histoloom.generation.woven_patch import SOURCES
from histoloom.generation.woven_reader import iter_index
from histoloom.models.card import card_template, license_of
from histoloom.models.pipeline import HistoloomPipeline
from histoloom.parquet import count_rows
from histoloom.version import VERSION

_HEADER = """task_categories:
- image-segmentation
configs:
- config_name: default
  data_files:
  - split: train
    path:
    - metadata.parquet
    - images/*.png
    - maps/*.png
"""
_TEMPLATE = card_template(
    """
{{ count }} synthetic H&E patches with pixel-exact tissue maps, {{ scale }}, woven by Histoloom {{ version }} with
model `{{ made.model_hash }}`. No patch shows a patient; a patch may resemble the crops that it was woven from, see
`copy_score` in `index.parquet`.

| id | tissue | color |
|---|---|---|
{% for tissue in table.types %}
| {{ tissue.id }} | {{ tissue.name|replace("|", "\\\\|") }} | `{{ tissue.color }}` |
{% endfor %}

Map value 255 is unlabeled.

{% if delivered %}
## What was ordered, and what was obtained

```text
{{ delivered|safe }}
```

{% endif %}
## How it was made

{{ made.scheduler }} with {{ made.steps }} steps; map guidance {{ "%g"|format(made.map_guidance) }}, crop guidance
{{ "%g"|format(made.crop_guidance) }}, acting above 1 between {{ "%g"|format(made.guidance_interval[0]) }} and
{{ "%g"|format(made.guidance_interval[1]) }} of the noise; seeds from {{ made.seed }};
conditioning `{{ made.conditioning }}`.
{% if made.copy_limit is none or made.copy_limit >= 1 %}
No patch was woven again for resembling a crop.
{% else %}
A patch that resembled a crop by more than {{ "%.3g"|format(made.copy_limit) }} was woven again.
{% endif %}
`index.parquet` says the same of each patch; `record.json` holds all settings and the fingerprints of model, maps and
crops.

```python
from datasets import load_dataset

patches = load_dataset("path/to/this/folder", split="train")  # image, semantic_map, and how each was made
```

## License

Inherited from the model: {{ license.sentence }}
{% if has_sources %}

## Before you share this folder

`{{ sources }}` holds the file names of the maps and crops. Leave it out where they name patients.
{% endif %}
""",
    _HEADER,
)


def write_card(folder: Path, pipeline: HistoloomPipeline) -> None:
    """Write `README.md` of the woven patches in `folder`; raises OutputError."""
    count, made = count_rows(folder / "index.parquet"), next(iter_index(folder))
    mpp = made.get("mpp")
    text = _TEMPLATE.render(
        name=f"{count} woven patches",
        count=count,
        made=made,
        table=pipeline.table,
        license=license_of(pipeline),
        scale="scale unknown" if mpp is None else f"{mpp:g} um per pixel",
        delivered=describe_delivered(folder).replace("`", "'"),
        version=VERSION,
        sources=SOURCES,
        has_sources=(folder / SOURCES).is_file(),
    )
    files.write_text(folder / "README.md", text)
