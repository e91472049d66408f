"""A model hub on this machine, and a model small enough to be on it."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import RobertaConfig, RobertaModel, RobertaTokenizerFast


class Hub(ThreadingHTTPServer):
    """A model hub: serves bytes by path, and the rest of a file on request.

    Attributes:
        content: path -> bytes.
        asked: (path, Range header) of every request.
        breaks: number of answers that end after half of their bytes.
        failures: number of answers that are errors of the server.
        garbled: number of answers that are no HTTP.
        denied: paths that are not for everybody.
        ranges: whether it sends the rest of a file; else always the whole one.
    """

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Answer)
        self.content, self.asked = {}, []
        self.breaks = self.failures = self.garbled = 0
        self.denied: set[str] = set()
        self.ranges = True

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_port}"


class _Answer(BaseHTTPRequestHandler):
    def do_GET(self):
        asked = self.headers.get("Range")
        self.server.asked.append((self.path.rpartition("/")[2], asked))
        asked = asked if self.server.ranges else None
        if self.server.failures:
            self.server.failures -= 1
            self.send_error(503)
            return
        if self.server.garbled:
            self.server.garbled -= 1
            self.wfile.write(b"no HTTP\r\n\r\n")
            return
        if self.path in self.server.denied:
            self.send_error(403)
            return
        if self.path not in self.server.content:
            self.send_error(404)
            return
        content = self.server.content[self.path]
        begin = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked else 0
        if asked and begin >= len(content):
            self.send_error(416)
            return
        content = content[begin:]
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.server.breaks:
            self.server.breaks -= 1
            content = content[: len(content) // 2]
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@contextmanager
def serving() -> Iterator[Hub]:
    """A hub that answers while the block runs."""
    with Hub() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def tiny_roberta(folder: Path) -> dict[str, bytes]:
    """Make a RoBERTa of width 8 with its tokenizer: file -> bytes."""
    torch.manual_seed(0)
    shape = {"hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 16}
    config = RobertaConfig(vocab_size=300, num_hidden_layers=1, max_position_embeddings=20, **shape)
    RobertaModel(config).save_pretrained(folder)
    trained = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trained.train_from_iterator(["so it goes"], 280, special_tokens=special)
    vocab, merges = trained.save_model(str(folder))
    RobertaTokenizerFast(vocab=vocab, merges=merges).save_pretrained(folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}
