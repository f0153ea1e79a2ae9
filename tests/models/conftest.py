"""Tiny pipelines of every conditioning."""

import pytest
from weaving import KINDS


@pytest.fixture(scope="module")
def pipelines(make_pipeline):
    """The five conditionings, by name."""
    return {kind: make_pipeline(kind) for kind in KINDS}


@pytest.fixture(scope="module")
def pipeline(pipelines):
    return pipelines["crops-as-reference"]
