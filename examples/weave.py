"""Weave four patches with the bundled model, from drawn layouts and its crop bank: the lines of the README."""

import numpy as np

from histoloom import HistoloomPipeline, LayoutConfig, contact_sheet, draw_layouts, find_model, load_bank

folder = find_model("ebhi-seg")  # or the folder of a model of your own
pipeline = HistoloomPipeline.load(folder)
maps = draw_layouts(LayoutConfig(), pipeline.table, count=4, seed=0, size=224)  # uint8, 255 = unlabelled
bank = load_bank(f"{folder}/crops", pipeline.table)
crops = [bank.draw(semantic_map, np.random.default_rng(i)) for i, semantic_map in enumerate(maps)]
images = pipeline(list(maps), crops, map_guidance=1.5, crop_guidance=3.0, seed=0)  # uint8, n h w 3
shown = [[(crop.tissue, crop.pixels) for crop in mine] for mine in crops]
contact_sheet(list(zip(maps, shown, images, strict=True)), pipeline.table).save("contact-sheet.png")
