"""The page that explains a bundle to whoever unpacks it."""

from collections.abc import Collection as Members

from amst.records import WEIGHTS
from amst.results.cells import Collection

TEXT = """\
# Results of the AMST suite

{done} of {all} runs of a grid of multimodal experiments, and the tables and figures made from them.
{made_by}

| where | what |
|---|---|
{where}

Files for computing (`.csv`, `.json`) have shares as fractions of 1, those for reading percent. In
the suite, `docs/results.md` says what each table and test is, `docs/files.md` what columns, fields
and arrays the files of a run have, `docs/methods/` what the settings mean.

## To check it

In this folder, with the environment of a checkout of a {made_of} named above; the one that `make
light` sets up there is enough, without torch and without a GPU.

```
sha256sum --check --quiet SHA256SUMS
{tables}
diff -r tables again
{evaluate}
```

Every file is as it was packed; records and predictions give the same tables; and the predictions of
a run give the metrics in its record. {of_tables}

By hand: `main` in `run.json` names the prediction of the main table. In `predictions.npz`,
`test/logits/<main>` has a row for each sample and a column for each class, `test/labels` the column
that is right. Contributions (`shapley`) are Shapley's, from `subset_accuracy`; no modality at all
counts as the accuracy of always answering the most frequent class of the training part, the first
of `classes` where several tie. Its samples are `parts.train` in the file of the split, their labels
stand in `samples.jsonl`.
"""
PLACES = {
    "runs/": "a folder `<dataset>/<split>/<variant>/seed<k>` for each run: `run.json` (settings, "
    "metrics, cost, environment), `history.csv` and `cost.csv` (a row per epoch), "
    "`predictions.npz` (logits of the validation and the test part){weights}",
    "tables/": "every table as CSV, Markdown, LaTeX and HTML; `runs.csv` has the commit, the "
    "digests, host and times of every run",
    "figures/": "every figure as PDF and PNG",
    "data/": "a folder for each dataset (of those that share one, what `features` in "
    "`settings/grid.json` says): `manifest.json` (classes, features, checksums), "
    "`splits/<split>.json` (ids of each part), `samples.jsonl` (label and group of each id; groups "
    "are what the bootstrap draws)",
    "settings/": "`grid.json`, the runs with the hash of the settings of each; the files of the "
    "configuration, each merged over those before it",
    "reference/": "published figures that the table `reproduction` compares with",
    "requirements.txt": "the pinned packages of the suite",
}
"""Beginning of paths in a bundle -> what lies there."""
IF_ANONYMOUS = {
    "tables/": "every table as CSV, Markdown, LaTeX and HTML; `runs.csv` has the digests of every "
    "run",
    "settings/": "`grid.json`, the runs with the hash of the settings of each; `config.yaml`, the "
    "configuration",
}
ANONYMOUS = """

For double-blind review, this bundle does not tell who made it: hosts are numbered by the order of
their names; commits, SLURM jobs and times of day are empty; of a setting that is a path outside
the working folder there is the last part, and the hash is of the settings as they are here."""


def readme(collection: Collection, names: Members[str], *, anonymous: bool = False) -> bytes:
    """The page, the same bytes for the same records and files.

    Args:
        collection: the grid's cells.
        names: paths of the other files in the bundle.
        anonymous: whether the records are anonymous, for double-blind review.
    """
    places = PLACES | IF_ANONYMOUS if anonymous else PLACES
    weights = f", `{WEIGHTS}`" if any(name.endswith(WEIGHTS) for name in names) else ""
    where = [
        f"| `{place}` | {what.format(weights=weights)} |"
        for place, what in places.items()
        if any(name.startswith(place) for name in names)
    ]
    done, planned = collection.finished, collection.runs
    tables = ["amst tables --results . --grid settings/grid.json --out again"]
    if "reference/published.csv" in names:
        tables.append("--published reference/published.csv")
    if len(done) < len(planned):
        tables.append("--partial")
    first = done[0].id if done else "<run>"
    text = TEXT.format(
        done=len(done),
        all=len(planned),
        made_by=_made_by(collection, anonymous),
        made_of="version" if anonymous else "commit",
        where="\n".join(where),
        tables=" ".join(tables),
        evaluate=f"amst evaluate {first} --results . --from-predictions",
        of_tables=_of_tables(collection),
    )
    return text.encode()


def _made_by(collection: Collection, anonymous: bool) -> str:
    if anonymous:
        found = sorted({record.environment.suite_version for record in collection.records})
        return f"Made with: version {', '.join(found) or 'unknown'}.{ANONYMOUS}"
    made = {
        (record.environment.suite_version, record.environment.commit or "unknown")
        for record in collection.records
    }
    versions = "; ".join(f"version {version}, commit {commit}" for version, commit in sorted(made))
    said = f"Made with: {versions or 'no run is done'}."
    if runs_of_edited_code(collection):
        said += " `+changes`: that checkout had code which no commit holds, nor does this bundle."
    return said


def runs_of_edited_code(collection: Collection) -> int:
    """How many finished runs were made by code that no commit holds."""
    commits = [record.environment.commit for record in collection.records]
    return sum(commit.endswith("+changes") for commit in commits)


def _of_tables(collection: Collection) -> str:
    said = "Tables that a later commit makes may have other columns or words."
    if len(collection.finished) < len(collection.runs):
        said += " Those made here call every unfinished run `missing`; `runs.csv` says what it was."
    return said
