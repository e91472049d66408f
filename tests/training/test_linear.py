"""Linear evaluation of encoders that stand still."""

from contextlib import nullcontext
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits
from torch.nn.functional import cross_entropy

from amst.records import read_record
from amst.training import linear
from amst.training.assembly import assemble
from amst.training.checkpoint import CheckpointFolder, load_weights
from amst.training.linear import fit_classifier
from amst.training.lock import RunLock
from amst.training.signals import StopRequest


@pytest.fixture
def clusters():
    """Function (samples, seed) -> features of three overlapping classes, and labels."""

    def make(samples, seed):
        draw = torch.Generator().manual_seed(seed)
        labels = torch.randint(3, (samples,), generator=draw)
        features = torch.randn(samples, 5, generator=draw, dtype=torch.float64)
        features[:, 0] += labels
        features[:, 1] *= 100  # says nothing, loudly
        features[:, 2] = 7
        return features, labels

    return make


def test_it_is_the_multinomial_logistic_regression_of_standardised_features(clusters, monkeypatch):
    train, val = clusters(300, 0), clusters(100, 1)
    for penalty in (0.5, 0.02):
        monkeypatch.setattr(linear, "PENALTIES", (penalty,))
        found = fit_classifier(*train, *val, 3)
        x, y = train[0].numpy(), train[1].numpy()
        mean, deviation = x.mean(0), np.where(x.std(0) > 0, x.std(0), 1)
        other = LogisticRegression(C=1 / (penalty * len(x)), tol=1e-8, max_iter=1000)
        other.fit((x - mean) / deviation, y)
        theirs = other.predict_proba((val[0].numpy() - mean) / deviation)
        ours = found(val[0]).softmax(dim=1).numpy()
        assert np.abs(ours - theirs).max() < 1e-3


def test_the_validation_part_chooses_the_penalty(clusters):
    features, labels = clusters(60, 2)
    draw = torch.Generator().manual_seed(4)
    noise = torch.randn(460, 45, generator=draw, dtype=torch.float64)
    features = torch.cat([features, noise[:60, :40]], dim=1)
    # Noise that always has the most frequent label: the weights that say least are best.
    val = noise[60:], torch.full((400,), int(labels.mode().values))
    found = fit_classifier(features, labels, *val, 3)
    unsure = fit_classifier(features, labels, features, labels, 3)
    losses = [float(cross_entropy(each(features), labels)) for each in (found, unsure)]
    assert losses[0] > losses[1]


def test_a_class_without_a_training_sample_is_the_least_likely(clusters):
    features, labels = clusters(200, 3)
    logits = fit_classifier(features, labels, features, labels, 4)(features)
    assert logits.shape == (200, 4)
    assert logits.isfinite().all()
    assert (logits.argmin(dim=1) == 3).all()


def test_no_more_logits_than_a_block_holds_are_there_at_once(clusters, monkeypatch):
    train, val = clusters(300, 0), clusters(100, 1)
    whole, logits, sizes = fit_classifier(*train, *val, 3), linear._logits, set()

    def counted(features, weights):
        sizes.add(len(features))
        return logits(features, weights)

    monkeypatch.setattr(linear, "_BLOCK", 3 * 40)
    monkeypatch.setattr(linear, "_logits", counted)
    found = fit_classifier(*train, *val, 3)
    assert sizes == {40, 300 % 40, len(val[0])}
    assert (found.weights - whole.weights).abs().max() < 1e-6


def test_fits_of_many_weights_have_the_same_bits_on_any_number_of_cores(monkeypatch):
    monkeypatch.setattr(linear, "ITERATIONS", 3)
    draw = torch.Generator().manual_seed(5)
    features = torch.randn(20, 400, generator=draw, dtype=torch.float64)
    labels, found = torch.randint(28, (20,), generator=draw), []
    for cores in (1, 2):
        with threadpool_limits(cores, user_api="blas"):
            start = torch.zeros(28, 401, dtype=torch.float64)
            found.append(linear.minimise(start, features, labels, 0.01))
    assert torch.equal(*found)


def test_fits_are_kept_for_the_same_weights_only(clusters, tmp_path, monkeypatch):
    features, labels = clusters(60, 0)
    folder = CheckpointFolder(tmp_path)
    start = torch.zeros(3, 6, dtype=torch.float64)
    monkeypatch.setattr(linear, "_SAVE_EVERY", 0)

    def fits(weights):
        folder.save_weights(0, {"weights": torch.full((1,), weights)})
        return linear.Fits(folder, 0, Mock(RunLock), StopRequest())

    first = fits(1.0)
    found = first.of("audio")(start, features, labels, 0.1)
    again, other = fits(1.0), fits(2.0)
    assert (again.seconds, other.seconds) == (first.seconds, 0)
    monkeypatch.setattr(linear, "minimise", Mock(side_effect=RuntimeError("fitted")))
    assert torch.equal(again.of("audio")(start, features, labels, 0.1), found)
    for one, encoder, penalty in ((other, "audio", 0.1), (again, "text", 0.1), (again, "audio", 1)):
        with pytest.raises(RuntimeError, match="fitted"):
            one.of(encoder)(start, features, labels, penalty)


def test_only_a_modality_s_second_encoder_is_named_after_its_network():
    def network(*names):
        return Mock(names=names, return_value=Mock(embeddings=dict.fromkeys(names, torch.ones(1))))

    run = Mock(autocast=nullcontext)
    run.loader.in_order.return_value = [Mock()]
    run.method.networks = {"one": network("audio"), "two": network("text"), "all": network("text")}
    found = linear._embeddings(run, Mock())
    assert list(found) == ["linear/audio", "linear/text", "all/linear/text"]


@pytest.mark.parametrize("method", ["unimodal", "amst_full"])
def test_a_run_s_encoders_are_evaluated_at_its_best_epoch(workplace, method):
    options = {"method_settings": {"modality": "text"}} if method == "unimodal" else {}
    place = workplace(method, **options)
    place.finish()
    names = ["text"] if method == "unimodal" else ["audio", "text", "visual"]
    wanted = {f"linear/{name}" for name in names}
    if method == "amst_full":
        wanted |= {f"joint/linear/{name}" for name in names}
    record = read_record(place.out / "run.json")
    rows = [row for row in record.results if "linear/" in row.prediction]
    assert {row.prediction for row in rows} == wanted
    assert {(row.selected_by, row.part) for row in rows} == {("fused", "val"), ("fused", "test")}

    run = assemble(place.settings, place.digits.manifest, place.digits.split, place.execution)
    run.method.load_weights(load_weights(place.out / "weights.safetensors"))
    train, val, test = (linear._embeddings(run, run.part(p)) for p in ("train", "val", "test"))
    labels = {part: run.part(part).labels for part in ("train", "val")}
    with np.load(place.out / "predictions.npz") as arrays:
        for name in wanted:
            again = fit_classifier(train[name], labels["train"], val[name], labels["val"], 10)
            stored = arrays[f"test/logits/{name}"]
            assert np.allclose(stored, again(test[name]).numpy(), atol=1e-6)
            correct = stored.argmax(axis=1) == arrays["test/labels"]
            (row,) = (r for r in rows if r.prediction == name and r.part == "test")
            assert row.metrics.accuracy == pytest.approx(correct.mean())
