"""Figures as plain JSON."""

import numpy as np


def plain(value: object) -> object:
    """Dicts, lists, text and numbers alone; nan and infinity become null."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not np.isfinite(value) else value
