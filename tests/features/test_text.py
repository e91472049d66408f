import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import ByteLevelBPETokenizer
from transformers import RobertaTokenizerFast

from amst.config.run import TextFeatures
from amst.datasets.sentences import SENTENCES, WORDS
from amst.errors import AmstError
from amst.features.text import load_tokenizer, read_sentence


@pytest.fixture(scope="module")
def digits():
    return load_tokenizer(TextFeatures(tokenizer="digits"))


@pytest.fixture(scope="module")
def roberta_folder(tmp_path_factory):
    """A tokenizer of RoBERTa's kind, trained on two sentences."""
    folder = tmp_path_factory.mktemp("roberta")
    trained = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trained.train_from_iterator(["so it goes", "and so on"], 300, special_tokens=special)
    vocab, merges = trained.save_model(str(folder))
    RobertaTokenizerFast(vocab=vocab, merges=merges).save_pretrained(folder)
    return folder


@given(st.text(), st.integers(1, 40))
def test_ids_and_mask_are_those_of_any_sentence(sentence, tokens):
    tokenizer = load_tokenizer(TextFeatures(tokenizer="digits"))
    ids, mask = tokenizer.encode(sentence, tokens)
    assert (ids.shape, ids.dtype, mask.shape, mask.dtype) == (
        (tokens,),
        np.int32,
        (tokens,),
        np.uint8,
    )
    real = int(mask.sum())
    assert mask[:real].all()
    assert not ids[real:].any()
    assert 1 <= real <= tokens
    assert 0 <= ids.min() <= ids.max() < tokenizer.vocabulary


def test_every_word_of_the_dataset_is_one_token_and_no_two_are_the_same(digits):
    spoken = " ".join(SENTENCES).replace("{}", " ".join(WORDS)).split()
    found = {word: digits.encode(word, 3) for word in spoken}
    assert all(mask.sum() == 2 for _, mask in found.values())
    assert len({int(ids[1]) for ids, _ in found.values()}) == len(set(spoken))


def test_a_mistyped_word_is_spelled(digits):
    ids, mask = digits.encode("try svn", 8)
    letters = [int(digits.encode(letter, 2)[0][1]) for letter in "svn"]
    assert ids[2:5].tolist() == letters
    assert mask.tolist() == [1, 1, 1, 1, 1, 0, 0, 0]


def test_what_the_words_of_digits_lack_is_unknown_and_no_padding(digits):
    ids, mask = digits.encode("ß 7", 5)
    assert ids.tolist() == [1, 2, 2, 0, 0], "start, unknown twice, padding"
    assert mask.tolist() == [1, 1, 1, 0, 0]


def test_a_pretrained_tokenizer_is_read_from_a_folder(roberta_folder):
    tokenizer = load_tokenizer(TextFeatures(tokenizer=str(roberta_folder)))
    reference = RobertaTokenizerFast.from_pretrained(roberta_folder)
    for sentence in ("so it goes on", "", "and so on " * 20):
        ids, mask = tokenizer.encode(sentence, 12)
        wanted = reference(sentence, truncation=True, max_length=12, padding="max_length")
        assert ids.tolist() == wanted["input_ids"]
        assert mask.tolist() == wanted["attention_mask"]
    assert tokenizer.vocabulary == len(reference)


def test_a_tokenizer_that_is_not_here_is_an_error_without_a_connection(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(AmstError, match="'nobody/none' cannot be found on this machine"):
        load_tokenizer(TextFeatures(tokenizer="nobody/none"))


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff\xfe", b"<html>"])
def test_a_damaged_tokenizer_is_told_in_one_line(roberta_folder, tmp_path, content):
    folder = shutil.copytree(roberta_folder, tmp_path / "copy")
    (folder / "tokenizer.json").write_bytes(content)
    with pytest.raises(AmstError, match=rf"'{folder}' cannot be read \(.*\)\. Fetch") as told:
        load_tokenizer(TextFeatures(tokenizer=str(folder)))
    assert "\n" not in str(told.value)


def test_a_folder_without_a_tokenizer_is_an_error_that_names_it(tmp_path):
    with pytest.raises(AmstError, match="cannot be read"):
        load_tokenizer(TextFeatures(tokenizer=str(tmp_path)))


@pytest.mark.parametrize(
    ("mark", "encoding"),
    [
        (b"", "utf-8"),
        (b"\xef\xbb\xbf", "utf-8"),
        (b"", "latin-1"),
        (b"\xff\xfe", "utf-16-le"),
        (b"\xfe\xff", "utf-16-be"),
    ],
)
def test_sentences_are_read_in_every_encoding(mark, encoding, tmp_path):
    (tmp_path / "a.txt").write_bytes(mark + " Café olé \r\n".encode(encoding))
    with (tmp_path / "a.txt").open("rb") as file:
        assert read_sentence(file) == "Café olé"
