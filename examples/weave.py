"""Weave four patches with the bundled model, from drawn layouts and its crop bank, and draw a contact sheet."""

import numpy as np

from histoloom import (
    HistoloomPipeline,
    LayoutConfig,
    Order,
    WeaveConfig,
    contact_sheet,
    draw_layouts,
    find_model,
    load_bank,
    weave,
)

folder = find_model("ebhi-seg-few-steps")  # or the folder of a model of your own
pipeline = HistoloomPipeline.load(folder)
maps = draw_layouts(LayoutConfig(), pipeline.table, count=4, seed=0, size=224)  # uint8, 255 = unlabeled
bank = load_bank(f"{folder}/crops", pipeline.table)
orders = [Order(m, f"layout {i}", bank.draw(m, np.random.default_rng(i))) for i, m in enumerate(maps)]
patches = list(weave(pipeline, orders, WeaveConfig(copy_limit=1)))  # 1: crops of its own bank need no search for copies
shown = [[(crop.tissue, crop.pixels) for crop in order.crops] for order in orders]
rows = [(patch.semantic_map, crops, patch.image) for patch, crops in zip(patches, shown, strict=True)]
contact_sheet(rows, pipeline.table).save("contact-sheet.png")
