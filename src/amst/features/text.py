"""Sentences to token ids and attention masks."""

from collections.abc import Mapping
from typing import Any, BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray

from amst.config.run import TextFeatures
from amst.datasets.rawfiles import decode
from amst.datasets.sentences import SENTENCES, WORDS
from amst.pretrained import located, not_loaded

DIGITS = "digits"


class Tokenizer(Protocol):
    """What turns a sentence into ids."""

    @property
    def vocabulary(self) -> int:
        """Number of token ids."""

    def encode(self, sentence: str, tokens: int) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
        """Ids (tokens,) int32, padded or cut, and mask (tokens,) uint8, 1 for real tokens."""


def load_tokenizer(features: TextFeatures) -> Tokenizer:
    """The tokenizer that ``features`` names: 'digits', a local folder, or a hub name.

    A hub name is looked up among what `amst fetch` brought and in the local cache of downloads:
    no connection is opened.

    Raises:
        AmstError: it is not on this machine.
    """
    if features.tokenizer == DIGITS:
        return WordTokenizer()
    return PretrainedTokenizer(features.tokenizer)


class WordTokenizer:
    """The embedded dataset's tokenizer: a token per known word, else one per letter.

    The vocabulary is fixed by the sentences the dataset is made of, so it needs no training.
    """

    _PADDING, _START, _UNKNOWN = range(3)

    def __init__(self) -> None:
        words = {word for sentence in SENTENCES for word in sentence.split()} - {"{}"}
        letters = "abcdefghijklmnopqrstuvwxyz"
        known = sorted(words | set(WORDS) | set(letters), key=lambda word: (len(word), word))
        self._ids: Mapping[str, int] = {word: index for index, word in enumerate(known, 3)}

    @property
    def vocabulary(self) -> int:
        """Number of token ids, padding, start and unknown included."""
        return len(self._ids) + 3

    def encode(self, sentence: str, tokens: int) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
        """Ids and mask of a sentence, after a start token."""
        found = [self._START]
        for word in sentence.lower().split():
            pieces = [word] if word in self._ids else list(word)
            found += [self._ids.get(piece, self._UNKNOWN) for piece in pieces]
        return _padded(found, tokens, self._PADDING)


class PretrainedTokenizer:
    """A tokenizer of the transformers library, from a local folder or the local cache.

    Raises:
        AmstError: it is not on this machine, or cannot be read.
    """

    def __init__(self, name: str) -> None:
        from transformers import AutoTokenizer

        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(
                located(name), local_files_only=True
            )
        except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
            # the last three where a JSON file holds something else than it should
            remedy = (
                "Fetch it where there is a network (`amst fetch`), or name a local folder that "
                "holds it"
            )
            raise not_loaded("the tokenizer", name, error, remedy) from error
        self._padding = int(self._tokenizer.pad_token_id or 0)

    @property
    def vocabulary(self) -> int:
        """Number of token ids."""
        return len(self._tokenizer)

    def encode(self, sentence: str, tokens: int) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
        """Ids and mask of a sentence, with the model's special tokens, cut before padding."""
        ids = self._tokenizer(sentence, truncation=True, max_length=tokens)["input_ids"]
        return _padded(ids, tokens, self._padding)


def _padded(
    found: list[int], tokens: int, padding: int
) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
    ids = np.full(tokens, padding, np.int32)
    mask = np.zeros(tokens, np.uint8)
    ids[: len(found)] = found[:tokens]
    mask[: len(found)] = 1
    return ids, mask


def read_sentence(file: BinaryIO) -> str:
    """The text of a file, in an encoding of ``decode``, without surrounding space."""
    return decode(file.read()).strip()
