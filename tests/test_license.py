"""Licenses: read from cards and descriptions, joined, and never more than one line."""

import pytest

from histoloom.license import UNKNOWN, License


def test_a_license_is_one_line_and_an_empty_one_is_unknown():
    assert License(" cc-by-4.0 ", "Doe,\n  Roe") == License("cc-by-4.0", "Doe, Roe")
    assert License("", " ") == UNKNOWN
    assert License("cc-by-4.0", "Doe").sentence == "cc-by-4.0. Attribution: Doe"
    assert UNKNOWN.sentence == "unknown."


def test_what_is_made_from_several_names_each_license_and_author_once():
    mine, other = License("cc-by-4.0", "Doe"), License("mit", "Roe")
    assert mine.joined(other, mine) == License("cc-by-4.0 and mit", "Doe; Roe")
    assert License("mit").filled(mine) == License("mit", "Doe")
    assert UNKNOWN.filled(mine) == mine


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no header",
        "---\n- a list\n---\n",
        "---\nlicense: [1]\n---\n",
        "---\n: :\n---",
        "---\nlicense: 3\n---",
        "---",
    ],
)
def test_a_card_that_says_nothing_readable_is_unknown(tmp_path, text):
    (tmp_path / "README.md").write_text(text)
    assert License.of_card(tmp_path) == License.of_card(tmp_path / "none") == UNKNOWN
