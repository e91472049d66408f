"""docs/configuration.md says what the models say."""

from pathlib import Path

from amst.config.page import page

ROOT = Path(__file__).parents[2]


def test_the_page_is_current():
    current = (ROOT / "docs/configuration.md").read_text()
    assert current == page(), "run: python -m amst.config.page"


def test_every_key_has_a_type_and_a_default():
    rows = [line for line in page().splitlines() if line.startswith("| `")]
    assert len(rows) > 60
    for row in rows:
        _, key, kind, default, _, _ = row.replace("\\|", "").split("|")
        assert key.strip()
        assert kind.strip()
        assert default.strip()
