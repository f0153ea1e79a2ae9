from dataclasses import replace
from pathlib import Path

import pytest

from histoloom.errors import ConfigError, InputError
from histoloom.patches.from_slides import dataset_record
from histoloom.patches.rules import SlideDataset, SlideList
from histoloom.patches.slide_jobs import find_jobs, stem
from histoloom.slides.labeling import AnnotationConfig
from histoloom.tissue import TissueTable

NOTHING_HELD_OUT = SlideDataset(val_share=0.0)


def touch(folder: Path, *names: str) -> Path:
    """Files that hold their own name."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return folder


def pairs(folder: Path, config: SlideDataset = NOTHING_HELD_OUT, **options) -> dict[str, str | None]:
    """Source of each slide -> name of its annotation."""
    jobs, _ = find_jobs(folder / "slides", folder / "annotations", config, **options)
    return {job.source: job.annotation.name if job.annotation else None for job in jobs}


@pytest.mark.parametrize(
    ("slide", "annotation"),
    [
        ("a.svs", "a.geojson"),
        ("a.svs", "a.geojson.gz"),
        ("a.ome.tif", "a.json"),
        ("tumor_001.tif", "tumor_001.xml"),
        ("0a1.tiff", "0a1_mask.tiff"),
        ("a.ndpi", "a.png"),
        ("sub/a.svs", "a.xml"),
        ("sub/a.svs", "sub/a.xml"),
        ("series/1.dcm", "series.geojson"),
    ],
)
def test_an_annotation_has_the_name_of_its_slide(tmp_path, slide, annotation):
    touch(tmp_path / "slides", slide)
    touch(tmp_path / "annotations", annotation)
    assert pairs(tmp_path) == {slide: Path(annotation).name}


def test_slides_of_one_name_need_subfolders_of_annotations(tmp_path):
    touch(tmp_path / "slides", "x/a.svs", "y/a.svs")
    touch(tmp_path / "annotations", "a.xml")
    with pytest.raises(InputError, match=r"a\.xml: belongs to two slides of one name"):
        pairs(tmp_path)
    touch(tmp_path / "annotations", "x/a.xml", "y/a.xml")
    jobs, _ = find_jobs(tmp_path / "slides", tmp_path / "annotations", NOTHING_HELD_OUT)
    assert [job.annotation.parent.name for job in jobs] == ["x", "y"]
    assert len({job.part for job in jobs}) == 2


def test_a_slide_of_many_files_is_one_slide(tmp_path):
    touch(tmp_path / "slides", "s/1.dcm", "s/2.dcm", "t/1.dcm", "m.mrxs", "m/Data0000.dat", "v.vms", "v_macro.jpg")
    touch(tmp_path / "slides", "s/beside.svs")
    touch(tmp_path / "annotations", "s.xml", "t.xml", "m.xml", "v.xml", "beside.xml")
    assert list(pairs(tmp_path)) == ["m.mrxs", "s/1.dcm", "s/beside.svs", "t/1.dcm", "v.vms"]


def test_what_is_left_out_is_counted_with_an_example(tmp_path):
    touch(tmp_path / "slides", "a.svs", "b.svs", "c.svs", "d.svs")
    touch(tmp_path / "annotations", "a.xml", "b.xml")
    config = SlideDataset(val_share=0.0, leave_out=("b.*",))
    jobs, notes = find_jobs(tmp_path / "slides", tmp_path / "annotations", config)
    assert [job.source for job in jobs] == ["a.svs"]
    assert notes[0] == "1 of 4 slides are to be left out: b.svs"
    assert notes[1] == f"2 of 3 slides have no annotation of their name in {tmp_path}/annotations: c.svs, ..."


def test_names_to_leave_out_are_found_in_any_case_and_noted_where_they_fit_nothing(tmp_path):
    touch(tmp_path / "slides", "Tumor_018.svs", "b.svs")
    config = SlideDataset(
        val_share=0.0, leave_out=("tumor_018", "test_*.tif"), annotations=AnnotationConfig(rest="n"), unannotated=True
    )
    jobs, notes = find_jobs(tmp_path / "slides", None, config)
    assert [job.source for job in jobs] == ["b.svs"]
    assert notes == [
        "1 of 2 slides are to be left out: Tumor_018.svs",
        "no slide here has a name to be left out: test_*.tif",
    ]


def test_slides_of_one_name_are_noted_and_a_list_that_is_not_there_refused(tmp_path):
    for folder in ("one", "two"):
        touch(tmp_path / "slides" / folder, "a.svs")
    config = SlideDataset(val_share=0.0, annotations=AnnotationConfig(rest="n"), unannotated=True)
    jobs, notes = find_jobs(tmp_path / "slides", None, config)
    assert [job.case for job in jobs] == ["a", "a"]
    assert "slides in several folders, which count as one case each: a;" in notes[0]
    with pytest.raises(ConfigError, match="have no effect without one; give the list"):
        find_jobs(tmp_path / "slides", None, replace(config, listed=SlideList(where=("a=b",))))


def test_slides_without_annotations_are_taken_where_the_rest_has_a_type(tmp_path):
    touch(tmp_path / "slides", "a.svs", "b.svs")
    touch(tmp_path / "annotations", "a.xml")
    config = SlideDataset(annotations=AnnotationConfig(rest="normal"), unannotated=True, val_share=0.0)
    assert pairs(tmp_path, config) == {"a.svs": "a.xml", "b.svs": None}
    assert len(find_jobs(tmp_path / "slides", None, config)[0]) == 2
    with pytest.raises(ConfigError, match="need rest"):
        SlideDataset(unannotated=True)
    with pytest.raises(InputError, match="take slides without \\(--unannotated\\)"):
        find_jobs(tmp_path / "slides", None, NOTHING_HELD_OUT)


def test_a_list_says_which_slides_are_taken_and_whose_they_are(tmp_path):
    touch(tmp_path / "slides", "a.tiff", "b.tiff", "c.tiff")
    touch(tmp_path / "annotations", "a_mask.tiff", "b_mask.tiff", "c_mask.tiff")
    listing = tmp_path / "train.csv"
    listing.write_text("image_id,hospital,patient\na,one,P1\nb.tiff,two,P2\nc,two,P3\ngone,two,P4\n")
    config = SlideDataset(listed=SlideList(case="patient", where=("hospital=two",)), val_share=0.0)
    jobs, notes = find_jobs(tmp_path / "slides", tmp_path / "annotations", config, listing)
    assert {job.source: job.case for job in jobs} == {"b.tiff": "P2", "c.tiff": "P3"}
    where = f"listed in {listing} are not in {tmp_path}/slides"
    assert notes == [f"1 of 3 slides {where} (add them, or take them off the list): gone"]


@pytest.mark.parametrize(
    ("rows", "taken"),
    [
        ("x/a.tiff,P1", {"x/a.tiff": "P1"}),
        ("x/a.tiff,P1\ny/a,P2", {"x/a.tiff": "P1", "y/a.tiff": "P2"}),
        ("data/slides/Y/a.tiff,P2", {"y/a.tiff": "P2"}),
        ("elsewhere/b.tiff,P3", {"x/b.tiff": "P3"}),
        ("a,P1", {"x/a.tiff": "P1", "y/a.tiff": "P1"}),
    ],
)
def test_a_folder_in_a_list_tells_slides_of_one_name_apart(tmp_path, rows, taken):
    touch(tmp_path / "slides", "x/a.tiff", "y/a.tiff", "x/b.tiff")
    touch(tmp_path / "annotations", "x/a.xml", "y/a.xml", "x/b.xml")
    (tmp_path / "train.csv").write_text(f"image_id,patient\n{rows}\n")
    config = SlideDataset(listed=SlideList(case="patient"), val_share=0.0)
    jobs, _ = find_jobs(tmp_path / "slides", tmp_path / "annotations", config, tmp_path / "train.csv")
    assert {job.source: job.case for job in jobs} == taken


def test_rows_that_say_two_things_of_a_slide_are_refused(tmp_path):
    touch(tmp_path / "slides", "a.tiff")
    touch(tmp_path / "annotations", "a.xml")
    (tmp_path / "train.csv").write_text("image_id,patient\na,P1\nx/a.tiff,P2\n")
    config = SlideDataset(listed=SlideList(case="patient"), val_share=0.0)
    with pytest.raises(InputError, match=r"train\.csv line 3: .*listed before with another case"):
        find_jobs(tmp_path / "slides", tmp_path / "annotations", config, tmp_path / "train.csv")


@pytest.mark.parametrize(
    ("listed", "message"),
    [
        ({"where": ("hospital=three",)}, "no row holds hospital=three"),
        ({"where": ("clinic=one",)}, "has no column 'clinic'; known: .*image_id"),
        ({"slide": "name"}, "has no column 'name'"),
    ],
)
def test_a_list_that_does_not_fit_is_named(tmp_path, listed, message):
    touch(tmp_path / "slides", "a.tiff")
    (tmp_path / "train.csv").write_text("image_id,hospital\na,one\n")
    with pytest.raises(InputError, match=rf"train\.csv.*{message}"):
        find_jobs(tmp_path / "slides", None, SlideDataset(listed=SlideList(**listed)), tmp_path / "train.csv")
    with pytest.raises(InputError, match=r"no\.csv: cannot be read as CSV"):
        find_jobs(tmp_path / "slides", None, SlideDataset(), tmp_path / "no.csv")


def test_a_condition_is_column_and_value():
    with pytest.raises(ConfigError, match="write column=value"):
        SlideList(where=("radboud",))


@pytest.mark.parametrize("pattern", ["(", "^P", "^(P)([0-9])"])
def test_a_case_pattern_has_one_group(pattern):
    with pytest.raises(ConfigError, match="case pattern"):
        SlideDataset(case_pattern=pattern)


def test_patients_join_slides_and_a_name_without_patient_is_refused(tmp_path):
    touch(tmp_path / "slides", "P1_a.svs", "P1_b.svs", "P2_a.svs")
    config = SlideDataset(
        annotations=AnnotationConfig(rest="normal"), unannotated=True, case_pattern="^(P[0-9])_", val_share=0.4
    )
    jobs, _ = find_jobs(tmp_path / "slides", None, config)
    assert [job.case for job in jobs] == ["P1", "P1", "P2"]
    assert jobs[0].split == jobs[1].split != jobs[2].split
    touch(tmp_path / "slides", "x.svs")
    with pytest.raises(ConfigError, match=r"finds no case in 'x\.svs'"):
        find_jobs(tmp_path / "slides", None, config)


def test_what_changed_under_its_name_is_another_input(tmp_path):
    touch(tmp_path / "slides", "a.svs")
    touch(tmp_path / "annotations", "a.xml")

    def inputs() -> dict[str, str]:
        jobs, _ = find_jobs(tmp_path / "slides", tmp_path / "annotations", NOTHING_HELD_OUT)
        return dataset_record(jobs, TissueTable.from_names(["a"]), NOTHING_HELD_OUT).inputs

    first = inputs()
    (tmp_path / "annotations" / "a.xml").write_text("drawn again")
    changed = inputs()
    assert {name for name in first if changed[name] != first[name]} == {"annotation a.xml"}
    (tmp_path / "slides" / "a.svs").write_text("b.svs")
    assert {name for name in first if inputs()[name] != changed[name]} == {"slide a.svs"}


def test_stems_are_names_without_suffixes():
    assert [stem(Path(name)) for name in ("a.b.svs", "a.ome.tiff", "s/0.dcm")] == ["a.b", "a", "s"]


def test_no_folder_and_no_slides_are_named(tmp_path):
    with pytest.raises(InputError, match="no such folder; give a slide"):
        find_jobs(tmp_path / "no", None, SlideDataset())
    (tmp_path / "slides").mkdir()
    with pytest.raises(InputError, match="no slides here"):
        find_jobs(tmp_path / "slides", None, SlideDataset())
    touch(tmp_path / "slides", "a.svs")
    with pytest.raises(InputError, match="give the folder of the annotations"):
        find_jobs(tmp_path / "slides", tmp_path / "no", SlideDataset())
