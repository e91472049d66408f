"""CITATION.cff says what the package and the paper are."""

from pathlib import Path

import yaml

from amst import __version__

CITATION = yaml.safe_load((Path(__file__).parents[1] / "CITATION.cff").read_text("utf-8"))


def test_the_version_and_licence_are_those_of_the_package():
    assert CITATION["version"] == __version__
    assert CITATION["license"] == "Apache-2.0"


def test_what_the_format_requires_is_there():
    assert {"cff-version", "message", "title", "authors"} <= CITATION.keys()
    for reference in CITATION["references"]:
        assert {"type", "title", "authors"} <= reference.keys()


def test_the_paper_is_named():
    (paper,) = CITATION["references"]
    assert paper["title"] == "AMST: Alternating Multimodal Skip Training"
    assert (paper["conference"]["name"], paper["year"]) == ("ECML PKDD 2025", 2025)
    names = [each.get("family-names", each.get("name")) for each in paper["authors"]]
    assert names == ["Silva", "Chen", "Selpi"]
    assert paper["doi"] == "10.1007/978-3-032-06078-5_30"
