"""The name of a run's folder of checkpoints: what must be equal to continue. Imports no torch."""

import hashlib
from pathlib import Path

from amst.config.run import RunSettings
from amst.files import sha256_of


def working_digest(
    settings: RunSettings, manifest: Path, split: Path, code_digest: str, package_digest: str
) -> str:
    """Digest of all that a run's numbers depend on: a changed run never continues an old one."""
    parts = [settings.hash, code_digest, package_digest]
    parts += [sha256_of(path) if path.is_file() else "" for path in (manifest, split)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
