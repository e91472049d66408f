"""What docs/files.md says of the files of a run, held against them; the code of a page."""

import csv
import json
import re
from pathlib import Path

import numpy as np

DOCS = Path(__file__).parents[1] / "docs"
PLACES = {"<part>": "(val|test)", "<prediction>": ".+"}


def code_in(page):
    """The Python of a page, in one piece."""
    text = (DOCS / page).read_text(encoding="utf-8")
    return "\n".join(re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))


def names_documented():
    """Head of a table, with the section where it is needed -> names in its first column."""
    found, section, head = {}, "", ""
    for line in (DOCS / "files.md").read_text(encoding="utf-8").splitlines():
        first = line.split("|")[1].strip() if line.startswith("|") else ""
        if line.startswith("## "):
            section = line[3:]
        elif first and not first.startswith(("`", "---")):
            head = f"{section}: {first}" if first == "column" else first
            found[head] = []
        elif first.startswith("`"):
            found[head] += re.findall("`([^`]+)`", first)
    return found


def names_in(folder):
    """The same heads -> names in the files of a run."""
    record = json.loads((folder / "run.json").read_text())
    found = {
        "prediction": {row["prediction"] for row in record["results"]},
        "field": record,
        "field of a row of `results`": record["results"][0],
        "field of `metrics`": record["results"][0]["metrics"],
        "field of `cost`": record["cost"],
        "field of `environment`": record["environment"],
    }
    with np.load(folder / "predictions.npz") as arrays:
        found["array"] = list(arrays)
    for name in ("history.csv", "cost.csv"):
        with (folder / name).open(newline="") as file:
            found[f"{name}: column"] = next(csv.reader(file))
    return found


def against_the_page(folder):
    """Names that a run has and the page lacks, and those of the page that the run lacks."""
    present, documented = names_in(folder), names_documented()
    assert present.keys() == documented.keys()
    lacking, unused = set(), set()
    for head, names in present.items():
        patterns = {name: _pattern(name) for name in documented[head]}
        lacking |= {
            f"{head} {name}"
            for name in names
            if not any(each.fullmatch(name) for each in patterns.values())
        }
        unused |= {
            name
            for name, each in patterns.items()
            if not any(each.fullmatch(other) for other in names)
        }
    return lacking, unused


def _pattern(name):
    parts = re.split("(<[a-z]+>)", name)
    found = (PLACES.get(part, "[^/]+") if part[:1] == "<" else re.escape(part) for part in parts)
    return re.compile("".join(found))
