import pytest

from amst.config.run import Kind
from amst.errors import AmstError
from amst.models.released import released_names

KINDS: dict[str, Kind] = {"sound": "audio", "view": "visual", "words": "text"}


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("encoders.sound.backbone.layer1.0.conv1.weight",
         "encoders.a.basic_resnet18.layer1.0.conv1.weight"),
        ("encoders.view.projection.weight", "encoders.v.out_conv.weight"),
        ("encoders.words.model.pooler.dense.bias", "encoders.t.model.pooler.dense.bias"),
        ("probes.words.bias", "helpers.t.bias"),
        ("head.classifiers.sound.weight", "fusion.out_layers.a.weight"),
        ("head.bias", "fusion.bias"),
        ("head.classifier.bias", "fusion.fc.bias"),
        ("alternating.head.classifier.bias", "A.fusion.fc.bias"),
        ("joint.probes.view.weight", "J.helpers.v.weight"),
    ],
)  # fmt: skip
def test_every_weight_has_its_released_name(ours: str, theirs: str) -> None:
    assert released_names([ours], KINDS) == {ours: theirs}


@pytest.mark.parametrize(
    ("kinds", "ours", "theirs"),
    [
        ({"view": "visual"}, "encoders.view.backbone.bn1.bias", "net.basic_resnet18.bn1.bias"),
        ({"words": "text"}, "encoders.words.model.pooler.dense.bias",
         "text_encoder.model.pooler.dense.bias"),
        ({"view": "visual"}, "head.classifiers.view.weight", "fc.weight"),
    ],
)  # fmt: skip
def test_models_of_one_modality_have_names_of_their_own(
    kinds: dict[str, Kind], ours: str, theirs: str
) -> None:
    assert released_names([ours], kinds, unimodal=True) == {ours: theirs}


def test_two_modalities_of_a_kind_have_no_released_form() -> None:
    with pytest.raises(AmstError, match="at most one modality of a kind"):
        released_names([], {"left": "visual", "right": "visual"})


def test_encoders_that_the_released_code_lacks_are_refused() -> None:
    with pytest.raises(AmstError, match="no counterpart"):
        released_names(["encoders.sound.layers.0.weight"], KINDS)
