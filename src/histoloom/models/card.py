"""The license of an open model, and templates of cards that pass it on."""

import json
from typing import Any

from jinja2 import Environment, Template

from histoloom.license import License

_HEADER = """---
pretty_name: {{ name|yaml|safe }}
license: {{ license.name|yaml|safe }}
{% if license.attribution %}
attribution: {{ license.attribution|yaml|safe }}
{% endif %}
tags:
- histopathology
- synthetic
- histoloom
"""
_ENVIRONMENT = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
_ENVIRONMENT.filters["yaml"] = json.dumps  # a JSON text is a YAML scalar


def card_template(text: str, header: str = "") -> Template:
    """The template of a card of `name` and `license`: a header for the hub, with more in `header`, a title, and `text`.

    Foreign text in it is escaped, in the header by the filter `yaml`.
    """
    return _ENVIRONMENT.from_string(f"{_HEADER}{header}---\n# {{{{ name }}}}\n{text}")


def license_of(pipeline: Any) -> License:
    """The license in the card of an open model."""
    return License.of_card(getattr(pipeline, "name_or_path", None) or pipeline.config.get("_name_or_path") or "")
