"""Names of all tables and figures, readable without importing what makes them."""

from pathlib import Path

TABLE_NAMES = (
    "main",
    "macro_f1",
    "validation",
    "unimodal",
    "balance",
    "cost",
    "reproduction",
    "significance",
    "intervals",
    "mcnemar",
    "ranks",
    "runs",
)
TABLES_FROM_PREDICTIONS = ("main", "significance", "intervals", "mcnemar")
"""Tables that read ``predictions.npz`` besides the records."""
TABLE_FORMS = ("csv", "md", "tex", "html")
FIGURE_NAMES = ("curves", "modalities", "hours", "schedule")
"""Figures of one dataset, in files ``<name>-<dataset>.<form>``."""
FIGURE_FORMS = ("pdf", "png")
CHECKOUT = Path(__file__).parents[3]
"""Root of the checkout that the package runs from."""
PUBLISHED = CHECKOUT / "workflow" / "reference" / "published.csv"
"""Published figures that the table `reproduction` compares with; part of the checkout."""
CAPTIONS = CHECKOUT / "workflow" / "report"
"""Folder of the captions ``<figure>.rst``, those of Snakemake's report."""
