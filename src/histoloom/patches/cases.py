"""Cases, that is, patients: one spelling for each, and hints where file names hide them."""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence

from histoloom.text import canonical, shorten, tidy

# Names of public collections that begin with the patient.
_PATTERNS = {
    "TCGA": "^(TCGA-[A-Za-z0-9]{2}-[A-Za-z0-9]{4})",
    "CPTAC": "^(C3[LN]-[0-9]{5})",
    "GTEx": "^(GTEX-[A-Za-z0-9]+)",
    "Camelyon17": "^(patient_[0-9]{3})",
}
_MISSING = ("", "nan", "none", "null", "<na>")  # what tables write for a cell without a value


def is_missing(case: str) -> bool:
    """Whether a cell names no case: all such rows would be taken for one patient."""
    return canonical(case) in _MISSING


def same_spelling(cases: Sequence[str]) -> tuple[list[str], list[str]]:
    """The cases, each in the spelling of its first occurrence, and a note on each that had several.

    "p1", "P1" and "p1 " are one patient: two would put the patient on both sides of a split.
    """
    spellings: dict[str, list[str]] = defaultdict(list)
    for case in cases:
        name = tidy(case)
        if name not in spellings[canonical(case)]:
            spellings[canonical(case)].append(name)
    notes = [
        f"cases {', '.join(repr(shorten(name)) for name in names)} are taken for one patient"
        for names in spellings.values()
        if len(names) > 1
    ]
    return [spellings[canonical(case)][0] for case in cases], notes


def case_hints(names: Sequence[str]) -> list[str]:
    """Notes where every file counts as a case of its own although names of a public collection name the patient."""
    notes = []
    for collection, pattern in _PATTERNS.items():
        found = [match[1].upper() for name in names if (match := re.search(pattern, name, re.IGNORECASE))]
        shared = [patient for patient, count in Counter(found).items() if count > 1]
        if shared:
            notes.append(
                f"{len(shared)} patients of {collection}, such as {shared[0]}, have several files, which count as "
                f"several cases and may be on both sides of the split; give --case-pattern '{pattern}'"
            )
    return notes
