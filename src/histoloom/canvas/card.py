"""The card of a canvas: what it holds, what it was made with, and whose license it inherits."""

from pathlib import Path

from histoloom import files
from histoloom.canvas.layout import Layout, Regions
from histoloom.conditioning.inputs import Crop, content_id
from histoloom.models.card import card_template, license_of
from histoloom.models.pipeline import HistoloomPipeline
from histoloom.version import VERSION

_TEMPLATE = card_template("""
A synthetic H&E slide of {{ width }} x {{ height }} px at {{ "%g"|format(mpp) }} um per pixel, woven by Histoloom
{{ version }} with model `{{ model }}`. It shows no patient. It may resemble the crops that it was woven from; nobody
has searched it for copies.

| id | tissue | color | share of the labeled pixels | crops |
|---|---|---|---|---|
{% for type, share, crops in rows %}
| {{ type.id }} | {{ type.name|replace("|", "\\\\|") }} | `{{ type.color }}` | {{ share }} % | {{ crops }} |
{% endfor %}

`maps` holds the labels; 255 is unlabeled. `geojson` holds the same as polygons for QuPath; those of a canvas of more
than a million pixels follow a coarser level. Crops are named by a hash of their pixels; `record.json` holds all
settings.

```sh
histoloom patches {{ name }} --annotations {{ folder }}/maps --tissue {{ folder }}/tissue.toml \\
    --mpp {{ "%g"|format(mpp) }} --out patches
```

## License

Inherited from the model: {{ license.sentence }}
""")


def write_card(
    path: Path,
    pipeline: HistoloomPipeline,
    name: str,
    folder: str,
    layout: Layout,
    regions: Regions,
    crops: dict[int, list[Crop]],
    mpp: float,
) -> None:
    """Write the card of the slide `name`, whose labels are in `folder` next to it; raises OutputError."""
    labeled = max(int(regions.pixels[:255].sum()), 1)
    names = {tissue: ", ".join(content_id(crop.pixels) for crop in mine) for tissue, mine in crops.items()}
    rows = [
        (tissue, f"{100 * regions.pixels[tissue.id] / labeled:.1f}", names.get(tissue.id, "none"))
        for tissue in pipeline.table.types
        if tissue.id in regions.labels
    ]
    text = _TEMPLATE.render(
        name=name,
        folder=folder,
        rows=rows,
        width=layout.shape[1],
        height=layout.shape[0],
        mpp=mpp,
        model=pipeline.fingerprint,
        license=license_of(pipeline),
        version=VERSION,
    )
    files.write_text(path, text)
