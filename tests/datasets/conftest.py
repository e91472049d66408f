import pytest

from tests.datasets import rawtrees


@pytest.fixture(scope="session")
def tree_of(tmp_path_factory):
    """The miniature raw tree of a dataset, made once for all tests; nobody writes into it."""
    made = {}

    def tree_of(name, oddities=False):
        key = ("IEMOCAP" if name == "IEMOCAP3" else name, oddities)
        if key not in made:
            raw = tmp_path_factory.mktemp(f"{name}-odd" if oddities else name)
            made[key] = rawtrees.build(name, raw, oddities=oddities)
        return made[key]

    return tree_of
