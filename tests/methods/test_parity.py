"""The methods give the figures of the code released with the AMST paper, in float64.

``parity_cases.json`` holds figures recorded by running that code (commit 71d414f) on a CPU on
small made-up batches: losses per epoch, and the norm of every weight at the end. So does
``parity_more.json`` with text and three modalities; README.md tells how.
"""

import json
import zlib
from collections.abc import Iterator
from math import prod, sqrt
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from amst import methods
from amst.config.run import (
    AudioFeatures,
    Kind,
    Modality,
    Recipe,
    ResNet18,
    Roberta,
    TextFeatures,
    VisualFeatures,
)
from amst.loading.batch import Batch, TextTokens
from amst.methods.base import Method, Problem
from amst.models.released import released_names
from tests.methods.conftest import Epoch

CASES: dict[str, Any] = {}
for file in ("parity_cases.json", "parity_more.json"):
    CASES |= json.loads(Path(__file__).with_name(file).read_text())
KINDS: dict[str, Kind] = {"a": "audio", "t": "text", "v": "visual"}
# What the released code calls the predictions that we call differently.
RELEASED = {
    "f": "fused",
    "alt": "alternating",
    "joint": "joint",
    **{m: f"modality/{m}" for m in KINDS},
    **{f"alt_{m}": f"modality/{m}" for m in KINDS},
    **{f"joint_{m}": f"joint/modality/{m}" for m in KINDS},
}
RELEASED_PROBES = {m: f"probe/{m}" for m in KINDS} | {f"alt_{m}_h": f"probe/{m}" for m in KINDS}


@pytest.fixture(autouse=True)
def _float64(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    # every weight is prescribed: a tenth of the time went into drawing others before
    monkeypatch.setattr("amst.models.initial._draw", lambda *_: None)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("name", sorted(CASES))
def test_gives_the_figures_of_the_released_code(name: str, roberta: str) -> None:
    case = CASES[name]
    method = method_of(case, roberta)
    training = batches(case, case["seed_train"], case["batches"])
    validation = batches(case, case["seed_val"], 2)
    for epoch, expected in enumerate(case["expected"]["epochs"]):
        measured = run_epoch(method, epoch, training, validation)
        for part, figures in expected.items():
            assert {k: measured[part][k] for k in figures} == pytest.approx(figures, rel=1e-6), (
                f"epoch {epoch}, {part}"
            )
    names = released_names(method.weights(), kinds_of(case))
    norms = {
        names[k]: v.norm().item() for k, v in method.weights().items() if v.is_floating_point()
    }
    assert norms == pytest.approx(case["expected"]["parameter_l2"], rel=1e-6, abs=1e-12)


def kinds_of(case: dict[str, Any]) -> dict[str, Kind]:
    """Modality -> kind of a case."""
    return {name: KINDS[name] for name in case["modalities"]}


@pytest.fixture(scope="session")
def roberta(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with the text encoder that the README of the figures prescribes."""
    from transformers import RobertaConfig, RobertaModel

    folder = tmp_path_factory.mktemp("roberta")
    config = RobertaConfig(
        vocab_size=200, hidden_size=768, num_hidden_layers=6, num_attention_heads=12,
        intermediate_size=256, max_position_embeddings=40, type_vocab_size=1, pad_token_id=1,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, layer_norm_eps=1e-12,
    )  # fmt: skip
    RobertaModel(config).float().save_pretrained(folder)
    return str(folder)


def method_of(case: dict[str, Any], roberta: str) -> Method[Any]:
    """The case's method with the weights that the README of the figures prescribes."""
    shapes, text = case["shapes"], Roberta(weights=roberta)
    modalities = {
        "a": Modality(kind="audio", features=AudioFeatures(), encoder=ResNet18()),
        "t": Modality(kind="text", features=TextFeatures(), encoder=text),
        "v": Modality(kind="visual", features=VisualFeatures(), encoder=ResNet18()),
    }
    problem = Problem(
        modalities={name: modalities[name] for name in case["modalities"]},
        shapes={
            "a": (1, shapes["audio_frames"], shapes["mel_bins"]),
            "t": (shapes["tokens"],),
            "v": (3, case["frames"], shapes["image"], shapes["image"]),
        },
        vocabulary=None,
        classes=case["classes"],
        embedding=case["embedding_dim"],
        recipe=Recipe(batch_size=case["batch_size"], **recipe_of(case)),
        seed=0,
    )
    method_class = methods.load(case["method"])
    method = method_class(method_class.Settings.model_validate(settings_of(case)), problem)
    names = released_names(method.weights(), kinds_of(case))
    method.load_weights({k: prescribed(names[k], v) for k, v in method.weights().items()})
    return method


def recipe_of(case: dict[str, Any]) -> dict[str, Any]:
    """Learning rate and decay of a case."""
    given = case["settings"]
    return case.get("recipe") or {
        "learning_rate": given["learning_rate"],
        "decay_every": given["lr_decay_step"],
        "decay_factor": given["lr_decay_ratio"],
    }


def settings_of(case: dict[str, Any]) -> dict[str, Any]:
    """The case's settings under our names."""
    given, method = case["settings"], case["method"]
    if "recipe" in case:
        return given
    if method == "naive":
        return {"head": given["head"]}
    if method == "ogm_ge":
        return {"alpha": given["alpha"], "noise": given["noise"]}
    if method == "pmr":
        return {k: given[k] for k in ("alpha", "factor")} | {"momentum": given["momentum_coef"]}
    if method == "mslr":
        return {
            "rates": given["rates"],
            "history": given["history_length"],
            "audio_rate": given["audio_lr"],
            "visual_rate": given["visual_lr"],
            "head_rate": given["fusion_lr"],
        }
    if method == "mla":
        return {"fusion": "equal"}
    skipping = {"skip": given["skip"], "skipped_encoder": given["skipped_encoder"]}
    if method == "amst_full":
        return skipping | {"second_branch": given["second_branch"].split()[0]}
    return skipping


def prescribed(name: str, value: torch.Tensor) -> torch.Tensor:
    """The initial value of the weight that the released code calls ``name``."""
    if name.endswith("running_mean") or not value.is_floating_point():
        return torch.zeros_like(value)
    if name.endswith("running_var"):
        return torch.ones_like(value)
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    r = torch.randn(value.shape, generator=generator, dtype=torch.float32).double()
    if value.dim() >= 2:
        return r * sqrt(2 / prod(value.shape[1:]))
    return 1 + 0.02 * r if name.endswith("weight") else 0.01 * r


def batches(case: dict[str, Any], seed: int, count: int) -> list[Batch]:
    """Batches as the README of the figures prescribes them, drawn in its order."""
    generator = torch.Generator().manual_seed(seed)
    size, shapes, frames = case["batch_size"], case["shapes"], case["frames"]
    sound = (size, shapes["audio_frames"], shapes["mel_bins"])
    picture = (size, 3, frames, shapes["image"], shapes["image"])
    drawn_in = getattr(torch, case.get("drawn_in", "float32"))
    made = []
    for _ in range(count):
        label = torch.randint(0, case["classes"], (size,), generator=generator)
        audio = torch.randn(sound, generator=generator, dtype=drawn_in).double()
        audio = audio + 0.1 * label.view(-1, 1, 1)
        image = torch.randn(picture, generator=generator, dtype=drawn_in).double()
        image = image + 0.05 * label.view(-1, 1, 1, 1, 1)
        tokens = torch.randint(3, 200, (size, shapes["tokens"]), generator=generator)
        length = torch.randint(5, 25, (size,), generator=generator)
        mask = torch.arange(shapes["tokens"]) < length[:, None]
        text = TextTokens(tokens.where(mask, torch.tensor(1)), mask)
        inputs = {"a": audio.unsqueeze(1), "t": text, "v": image}
        given = {name: inputs[name] for name in case["modalities"]}
        made.append(Batch(label, given, torch.arange(size)))
    return made


def run_epoch(
    method: Method[Any], epoch: int, training: list[Batch], validation: list[Batch]
) -> dict[str, dict[str, float]]:
    """Train and validate for one epoch; sums of mean cross-entropies over the batches."""
    parts = ("train", "train_helper", "val", "val_helper", "val_proto")
    sums: dict[str, dict[str, float]] = {f"{part}_loss_sum": {} for part in parts}
    method.begin_epoch(epoch, Epoch(training, validation))
    method.train()
    for batch in training:
        add(sums, "train", method.train_step(batch, epoch).logits, batch.labels)
    method.end_epoch()
    method.eval()
    hits: dict[str, int] = {}
    with torch.no_grad():
        for batch in validation:
            predictions = method.predict(batch)
            add(sums, "val", predictions, batch.labels)
            for name, logits in predictions.items():
                right = (logits.argmax(dim=1) == batch.labels).sum().item()
                hits[name] = hits.get(name, 0) + right
            if hasattr(method, "similarities"):
                for m, e in method.network(batch.inputs).embeddings.items():
                    loss = cross_entropy(method.similarities(m, e), batch.labels).item()
                    sums["val_proto_loss_sum"][m] = sums["val_proto_loss_sum"].get(m, 0) + loss
    samples = sum(batch.size for batch in validation)
    method.end_validation({name: count / samples for name, count in hits.items()})
    return sums


def add(
    sums: dict[str, dict[str, float]],
    part: str,
    predictions: dict[str, torch.Tensor],
    labels: torch.Tensor,
) -> None:
    """Add the losses of a batch under the released names."""
    predictions = (
        {"fused": predictions["equal"], **predictions}
        if "equal" in predictions
        else {**predictions}
    )
    for table, suffix in ((RELEASED, "_loss_sum"), (RELEASED_PROBES, "_helper_loss_sum")):
        into = sums[part + suffix]
        for theirs, ours in table.items():
            if ours in predictions:
                loss = cross_entropy(predictions[ours], labels).item()
                into[theirs] = into.get(theirs, 0) + loss
