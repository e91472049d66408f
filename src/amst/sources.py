"""What the source of a module says: the code that it holds and the modules that it imports.

Every version of Python from 3.11 on says the same: a login node and the image may have different
ones, and must agree on the code of a run. It is remembered under the SHA-256 of the source
in ``__pycache__``, where Python remembers compiled code: to parse the package takes a second, and
every start of Snakemake asks.
"""

import ast
import hashlib
import json
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from amst.files import write_text

_FORM = 2  # of what is remembered; another one where _text gives another text
_MOST = 2000  # remembered sources; with more, the older ones are forgotten


@dataclass(frozen=True)
class Facts:
    """What a source says.

    Attributes:
        imports: dotted names in its import statements, those within functions too; of
            ``from a import b`` both a and a.b.
        code: digest of the code without comments, docstrings and layout; hexadecimal.
    """

    imports: list[str]
    code: str


class Sources:
    """Reads sources, and remembers what they say.

    Args:
        folder: where it is remembered. Where nothing can be written there, nothing is remembered.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / f"sources.{_FORM}.json"
        self._known: dict[str, Facts] = {}
        self._new = False
        with suppress(OSError, ValueError, TypeError, AttributeError):
            found = json.loads(self._file.read_text("utf-8"))
            self._known = {digest: Facts(**facts) for digest, facts in found.items()}

    def read(self, path: Path) -> Facts:
        """What a file of source code says."""
        source = path.read_bytes()
        digest = hashlib.sha256(source).hexdigest()
        if digest not in self._known:
            self._known[digest] = _facts(ast.parse(source, str(path)))
            self._new = True
        return self._known[digest]

    def keep(self) -> None:
        """Write down what is known, if something was learnt."""
        if self._new and not sys.dont_write_bytecode:
            latest = list(self._known.items())[-_MOST:]
            with suppress(OSError):
                write_text(self._file, json.dumps({key: asdict(facts) for key, facts in latest}))
        self._new = False


def _facts(tree: ast.Module) -> Facts:
    names: set[str] = set()
    for node in _statements(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    code = _text(_without_docstrings(tree))
    return Facts(sorted(names), hashlib.sha256(code.encode()).hexdigest())


def _without_docstrings(tree: ast.Module) -> ast.Module:
    """The tree without docstrings and without strings that stand alone after an assignment."""
    for node in (tree, *_statements(tree)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [child for child in node.body if not _is_text(child)]
    return tree


def _text(node: object) -> str:
    """The code below a node as text, the same in every version of Python.

    ``ast.dump`` differs: versions have other fields (``type_params``), and show or hide those that
    hold nothing. Here these are left out, and whether a name is read or set: its place says that.
    """
    if isinstance(node, ast.Constant):
        return f"<{node.value!a}>"  # which letters repr escapes goes by the version's Unicode
    if isinstance(node, ast.AST):
        parts = [type(node).__name__]
        for name in node._fields:
            value = getattr(node, name, None)
            if value is None or value == [] or name == "ctx":
                continue
            if isinstance(node, ast.JoinedStr):  # 3.12 ends a format with a text of no letters
                value = [part for part in value if getattr(part, "value", None) != ""]
            parts.append(f"{name}={_text(value)}")
        return f"({' '.join(parts)})"
    if isinstance(node, list):
        return f"[{' '.join(map(_text, node))}]"
    return ascii(node)


def _is_text(node: ast.stmt) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    """All statements below a node; walking over their expressions, too, takes ten times as long."""
    for blocks in ("body", "orelse", "finalbody", "handlers", "cases"):
        inner = getattr(node, blocks, ())
        if isinstance(inner, list):  # the body of a lambda is an expression
            for child in inner:
                yield child
                yield from _statements(child)
