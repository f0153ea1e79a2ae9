import unicodedata

import pytest

from histoloom.config import load_recipe
from histoloom.text import canonical, counted, decode_text, is_file_name, load_toml, one_line, printable, shorten, tidy


@pytest.mark.parametrize("spelled", ["Ödem", unicodedata.normalize("NFD", "Ödem"), " ödem ", "ÖDEM", "Ödem\u00a0"])
def test_spellings_of_one_name_are_one(spelled):
    assert canonical(spelled) == canonical("Ödem")


def test_tidy_keeps_the_case_and_joins_blanks():
    assert tidy(unicodedata.normalize("NFD", "  Dr\u00fcse \t links ")) == "Dr\u00fcse links"


def test_what_a_terminal_would_obey_is_shown_as_an_escape():
    assert printable("a\x1b[31mb\nc\u202ed\udce4") == "a\\x1b[31mb\\x0ac\\u202ed\\xe4"
    assert one_line("a\n  b") == "a b"


@pytest.mark.parametrize(
    ("count", "patches", "images"),
    [(0, "0 patches", "0 images are"), (1, "1 patch", "1 image is"), (2000, "2,000 patches", "2,000 images are")],
)
def test_a_count_agrees_with_its_noun(count, patches, images):
    assert (counted(count, "patch"), counted(count, "image is", "images are")) == (patches, images)


def test_long_texts_are_cut_before_they_are_looked_through():
    assert shorten("x" * 50_000_000) == "x" * 120 + "..."
    assert shorten("short") == "short"


@pytest.mark.parametrize("name", ["../a", "a/b", "a\\b", "..", "a\nb", "a\0", "\x1b", ""])
def test_what_leads_elsewhere_is_no_file_name(name):
    assert not is_file_name(name)
    assert is_file_name("low-grade neoplasia (T1)")


@pytest.mark.parametrize("coding", ["utf-8", "utf-8-sig", "utf-16"])
def test_text_is_read_in_the_codings_that_mark_themselves(coding):
    assert decode_text("Drüse".encode(coding)) == "Drüse"


@pytest.mark.parametrize("coding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_toml_file_may_come_from_windows(tmp_path, coding):
    (tmp_path / "a.toml").write_bytes("# Präparat\r\n[data]\r\nname = 'ä'\r\n".encode(coding))
    assert load_toml(tmp_path / "a.toml") == {"data": {"name": "ä"}}


def test_a_recipe_may_begin_with_a_byte_order_mark(tmp_path):
    (tmp_path / "r.toml").write_bytes(b"\xef\xbb\xbf[data]\r\ndataset = 'patches'\r\n")
    assert load_recipe(tmp_path / "r.toml") == {"data": {"dataset": "patches"}}
