"""The XML is spelled exactly as in Camelyon16's lesion_annotations."""

import pytest

from histoloom.errors import AnnotationError
from histoloom.slides.annotations.asap import read_asap

CAMELYON16 = """<?xml version="1.0"?>
<ASAP_Annotations>
	<Annotations>
		<Annotation Name="Annotation 0" Type="Polygon" PartOfGroup="_0" Color="#F4FA58">
			<Coordinates>
				<Coordinate Order="0" X="100.5" Y="100" />
				<Coordinate Order="2" X="200" Y="200.25" />
				<Coordinate Order="1" X="200" Y="100" />
				<Coordinate Order="3" X="100.5" Y="200" />
			</Coordinates>
		</Annotation>
		<Annotation Name="Annotation 1" Type="Spline" PartOfGroup="_2" Color="#F4FA58">
			<Coordinates>
				<Coordinate Order="0" X="120" Y="120" />
				<Coordinate Order="1" X="140" Y="120" />
				<Coordinate Order="2" X="140" Y="140" />
			</Coordinates>
		</Annotation>
		<Annotation Name="Annotation 2" Type="Dot" PartOfGroup="None" Color="#F4FA58">
			<Coordinates>
				<Coordinate Order="0" X="120" Y="120" />
			</Coordinates>
		</Annotation>
	</Annotations>
	<AnnotationGroups>
		<Group Name="_2" PartOfGroup="None" Color="#D0021B">
			<Attributes />
		</Group>
		<Group Name="_0" PartOfGroup="None" Color="#64FE2E">
			<Attributes />
		</Group>
	</AnnotationGroups>
</ASAP_Annotations>
"""
LAUGHS = """<?xml version="1.0"?>
<!DOCTYPE lolz [
<!ENTITY lol "lol">
<!ENTITY lol2 "&lol;&lol;&lol;&lol;&lol;&lol;&lol;&lol;&lol;&lol;">
<!ENTITY lol3 "&lol2;&lol2;&lol2;&lol2;&lol2;&lol2;&lol2;&lol2;&lol2;&lol2;">
]>
<ASAP_Annotations><Annotations>&lol3;</Annotations></ASAP_Annotations>"""
EXTERNAL = """<?xml version="1.0"?>
<!DOCTYPE a [<!ENTITY secret SYSTEM "file:///etc/passwd">]>
<ASAP_Annotations><Annotations><Annotation Name="&secret;" /></Annotations></ASAP_Annotations>"""
PARAMETER = """<?xml version="1.0"?>
<!DOCTYPE a [<!ENTITY % remote SYSTEM "http://127.0.0.1:1/evil.dtd"> %remote;]><ASAP_Annotations />"""


def read(tmp_path, text: str):
    path = tmp_path / "tumor_001.xml"
    path.write_text(text, encoding="utf-8")
    return read_asap(path)


def outline(*points: str) -> str:
    body = "".join(f'<Coordinate Order="{i}" {p} />' for i, p in enumerate(points))
    return (
        '<ASAP_Annotations><Annotations><Annotation Name="A" Type="Polygon" PartOfGroup="Tumor"><Coordinates>'
        f"{body}</Coordinates></Annotation></Annotations></ASAP_Annotations>"
    )


def test_camelyon16_gives_outlines_in_order_with_groups_and_their_colours(tmp_path):
    found = read(tmp_path, CAMELYON16)
    assert [(p.name, p.color) for p in found.polygons] == [("_0", "#64fe2e"), ("_2", "#d0021b")]
    assert found.polygons[0].ring.tolist() == [[100.5, 100], [200, 100], [200, 200.25], [100.5, 200]]
    assert found.notes == (f"{tmp_path}/tumor_001.xml: 1 annotation(s) of type Dot have no area; left out",)


def test_the_group_none_is_no_class(tmp_path):
    found = read(tmp_path, outline('X="0" Y="0"', 'X="9" Y="0"', 'X="9" Y="9"').replace('"Tumor"', '"None"'))
    assert [p.name for p in found.polygons] == [None]


def test_an_outline_without_points_is_left_out_and_noted(tmp_path):
    found = read(tmp_path, outline())
    assert found.polygons == ()
    assert found.notes[0].endswith("annotation 1 (A, group Tumor): left out, 0 point(s) make no area")


def test_the_order_may_be_written_as_a_real_number(tmp_path):
    text = outline('X="0" Y="0"', 'X="9" Y="0"', 'X="9" Y="9"').replace('Order="1"', 'Order="1.0"')
    assert len(read(tmp_path, text).polygons[0].ring) == 3


def test_decimal_commas_are_read(tmp_path):
    found = read(tmp_path, outline('X="0,5" Y="0"', 'X="9" Y="0"', 'X="9" Y="9"'))
    assert found.polygons[0].ring[0].tolist() == [0.5, 0]


def test_a_self_crossing_outline_is_repaired_and_noted(tmp_path):
    found = read(tmp_path, outline('X="0" Y="0"', 'X="10" Y="10"', 'X="10" Y="0"', 'X="0" Y="10"'))
    assert len(found.polygons) == 2
    assert "annotation 1 (A, group Tumor): the outline crosses itself" in found.notes[0]


@pytest.mark.parametrize("text", [LAUGHS, EXTERNAL, PARAMETER])
def test_entities_are_refused_before_they_are_read(tmp_path, text):
    with pytest.raises(AnnotationError, match="declares XML entities") as error:
        read(tmp_path, text)
    assert "passwd" not in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<ASAP_Annotations>", "not readable as XML"),
        ("", "not readable as XML"),
        ('<Annotations MicronsPerPixel="0.25" />', "the XML begins with <Annotations>"),
        (outline('X="NaN" Y="1"', 'X="2" Y="1"', 'X="2" Y="2"'), "a coordinate is NaN"),
        (outline('X="one" Y="1"'), "a coordinate is not a number"),
        (outline('Y="1"'), "a coordinate is not a number"),
    ],
)
def test_what_is_no_asap_file_is_refused_in_one_line_that_names_it(tmp_path, text, message):
    with pytest.raises(AnnotationError) as error:
        read(tmp_path, text)
    assert message in str(error.value)
    assert str(error.value).startswith(f"{tmp_path}/tumor_001.xml: ")
    assert "\n" not in str(error.value)
