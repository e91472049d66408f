"""Named random streams: every random quantity has its own generator, seeded by (seed, names)."""

import hashlib


def stream_seed(seed: int, *names: str | int) -> int:
    """Seed of the stream ``names`` of a run with ``seed``: 63 bits, equal on every machine.

    Streams depend on names and never on the order of use, so a modality or a method that is added
    changes no other stream.
    """
    text = "\x1f".join(str(part) for part in (seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
