"""The released code's command line and our settings, in both directions.

A released checkpoint keeps its command line as ``args``: which method (``prefix``), which dataset,
which settings. Defaults are those of the released parsers, for arguments that a file lacks.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from amst.config.methods import settings_class, trained_modalities
from amst.config.run import Arithmetic, Modality, Recipe, RunSettings
from amst.documents import first_fault
from amst.errors import AmstError
from amst.models.released import LETTERS

DATASETS = ("AVE", "CREMAD", "IEMOCAP", "IEMOCAP3", "MVSA", "URFUNNY")
"""Datasets of the released code, which has the same names and, sorted, the same classes."""
SPLIT = "amst"
"""The split that the released code trains and tests on."""
UNIMODAL = "unimodal"

_RECIPE = {
    "batch_size": "batch_size",
    "epochs": "epochs",
    "learning_rate": "learning_rate",
    "lr_decay_step": "decay_every",
    "lr_decay_ratio": "decay_factor",
}
_SHARED: dict[str, Any] = {
    "batch_size": 64,
    "epochs": 100,
    "learning_rate": 0.001,
    "lr_decay_step": 70,
    "lr_decay_ratio": 0.1,
    "random_seed": 0,
    "save_path": "../ckpt",
}
_MULTIMODAL = {
    "device_list": [0],
    "parallel_method": "single",
    "using_ploader": True,
    "run_test": True,
    "data_path": "",
    "with_tf32": True,
}
_ALONE = {"optimizer": "sgd", "use_audio_augm": False, "name_prefix": ""}
_SKIP = {f"{letter}_skip_factor": 1 for letter in LETTERS.values()}


@dataclass(frozen=True)
class Form:
    """How the released code runs a method.

    Attributes:
        prefix: its name there.
        fusions: each ``fusion_method`` that has a counterpart -> the settings it stands for.
        settings: argument -> (our setting, default).
        arguments: further arguments -> default.
        fixed: our settings that say what the released code always does.
    """

    prefix: str
    fusions: Mapping[str, Mapping[str, Any]]
    settings: Mapping[str, tuple[str, Any]] = field(default_factory=dict)
    arguments: Mapping[str, Any] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)


_FORWARD = {"skipped_encoder": "forward"}
FORMS = {
    "naive": Form("Naive", {"lsum": {"head": "late_sum"}, "concat": {"head": "concat"}}),
    "ogm_ge": Form(
        "OGM",
        {"lsum": {}},
        {
            "alpha": ("alpha", 0.1),
            "modulation_starts": ("start", 0),
            "modulation_ends": ("end", 50),
        },
    ),
    "pmr": Form(
        "PMR",
        {"lsum": {}},
        {
            "alpha": ("alpha", 1.0),
            "modulation_starts": ("start", 0),
            "modulation_ends": ("end", 70),
            "momentum_coef": ("momentum", 0.2),
            "factor": ("factor", 0.1),
        },
        fixed={"prototype_transform": "augmented"},
    ),
    "mslr": Form(
        "MSLR",
        {"lsum": {}},
        {
            "history_length": ("history", 5),
            "fusion_lr": ("head_rate", 0.001),
            "audio_lr": ("audio_rate", 0.001),
            "visual_lr": ("visual_rate", 0.01),
            "text_lr": ("text_rate", 2e-5),
        },
        {"strategy": "dynamic"},
        # Whatever `strategy` says, the rule that adapts the rates is never called there.
        {"rates": "fixed"},
    ),
    "amst_alternating": Form("AMST-ALT", {"msum": {}}, arguments=_SKIP, fixed=_FORWARD),
    "amst_joint": Form("AMST-JOINT", {"concat": {}}, arguments=_SKIP, fixed=_FORWARD),
    "amst_full": Form(
        "AMST-FULL",
        {"concat": {}},  # set for its second branch when the first one has been built
        arguments=_SKIP,
        fixed={**_FORWARD, "second_branch": "released"},
    ),
}
"""Our method -> its released form. MLA has none: the released code saves no checkpoint of it."""


def method_of(args: Mapping[str, Any]) -> str:
    """Our name of the method that a command line runs.

    Raises:
        AmstError: no method has this prefix.
    """
    if "prefix" not in args and "modality" in args:
        return UNIMODAL
    prefix = args.get("prefix")
    for method, form in FORMS.items():
        if form.prefix == prefix:
            return method
    raise AmstError(
        f"the checkpoint is of no known method: its prefix is {prefix!r}",
        f"Known prefixes: {', '.join(form.prefix for form in FORMS.values())}",
    )


def settings_of(
    args: Mapping[str, Any],
    modalities: Mapping[str, Modality],
    embedding: int,
    arithmetic: Arithmetic,
) -> RunSettings:
    """Settings of the run that a command line started.

    Args:
        args: the command line, by argument.
        modalities: of the dataset as configured here: features and encoders.
        embedding: D as configured here.
        arithmetic: as configured here; TF32 is the checkpoint's.

    Raises:
        AmstError: the run has no counterpart here, or a value is out of range.
    """
    method = method_of(args)
    if method == UNIMODAL:
        given, own, variant = _alone(args, modalities)
    else:
        given = _SHARED | _MULTIMODAL | dict(args)
        own, variant = _own_settings(method, given, modalities), method
    if given.get("optimizer", "sgd") != "sgd":
        raise AmstError(
            f"the checkpoint was trained with {given['optimizer']!r}", "The recipe here is SGD"
        )
    try:
        return RunSettings(
            dataset=str(given["dataset"]),
            split=SPLIT,
            variant=variant,
            seed=given["random_seed"],
            method=method,
            method_settings=settings_class(method).model_validate(own).model_dump(mode="json"),
            modalities=trained_modalities(method, own, modalities),
            embedding=embedding,
            recipe=Recipe(**{ours: given[theirs] for theirs, ours in _RECIPE.items()}),
            arithmetic=arithmetic.model_copy(
                update={"tf32": "all" if given.get("with_tf32", True) else "conv"}
            ),
        )
    except ValidationError as error:
        raise AmstError(f"args of the checkpoint: {first_fault(error)}") from error


def _alone(
    args: Mapping[str, Any], modalities: Mapping[str, Modality]
) -> tuple[dict[str, Any], dict[str, Any], str]:
    """Command line, method settings and variant of a model of one modality."""
    name = _named(modalities).get(args["modality"])
    if name is None:
        raise AmstError(
            f"the checkpoint is of modality {args['modality']!r}, which {args['dataset']} has not"
        )
    settings = {"modality": name, "form": "released"}
    return _SHARED | _ALONE | dict(args), settings, f"{UNIMODAL}_{name}"


def _named(modalities: Mapping[str, Modality]) -> dict[str, str]:
    """Kind, which is what the released code calls a modality, -> our name."""
    return {modality.kind: name for name, modality in modalities.items()}


def _own_settings(
    method: str, args: Mapping[str, Any], modalities: Mapping[str, Modality]
) -> dict[str, Any]:
    form = FORMS[method]
    fusion = str(args.get("fusion_method"))
    if fusion not in form.fusions:
        raise AmstError(
            f"the checkpoint joins modalities by {fusion!r}, which {method} does not do here",
            f"It does: {', '.join(form.fusions)}",
        )
    own = {**form.fixed, **form.fusions[fusion]}
    own |= {ours: args.get(theirs, default) for theirs, (ours, default) in form.settings.items()}
    if form.arguments == _SKIP:
        # Factors of modalities that the dataset lacks do not count; the published ones are 0.
        own["skip"] = {
            name: args.get(f"{LETTERS[modality.kind]}_skip_factor", 1)
            for name, modality in modalities.items()
        }
    if method == "pmr" and args["dataset"] == "AVE":
        own["prototypes_from"] = "validation"
    return own


def arguments_of(settings: RunSettings) -> dict[str, Any]:
    """The command line that runs the released code with these settings, as far as it has them.

    Raises:
        AmstError: the released code has no such method, dataset or width.
    """
    _refuse_unknown(settings)
    args: dict[str, Any] = {"dataset": settings.dataset, **_SHARED}
    args |= {theirs: getattr(settings.recipe, ours) for theirs, ours in _RECIPE.items()}
    args["random_seed"] = settings.seed
    own = settings.method_settings
    if settings.method == UNIMODAL:
        (alone,) = settings.modalities.values()
        return {**args, **_ALONE, "modality": alone.kind}
    form = FORMS[settings.method]
    args |= {**_MULTIMODAL, **form.arguments, "prefix": form.prefix}
    args["with_tf32"] = settings.arithmetic.tf32 == "all"
    args["fusion_method"] = next(
        fusion
        for fusion, meant in form.fusions.items()
        if all(own[key] == value for key, value in meant.items())
    )
    args |= {theirs: own[ours] for theirs, (ours, _) in form.settings.items()}
    for name, modality in settings.modalities.items():
        if "skip" in own:
            args[f"{LETTERS[modality.kind]}_skip_factor"] = own["skip"].get(name, 1)
        if name in own.get("learning_rates", {}):
            args[f"{modality.kind}_lr"] = own["learning_rates"][name]
    return args


def _refuse_unknown(settings: RunSettings) -> None:
    if settings.method not in (*FORMS, UNIMODAL):
        raise AmstError(
            f"the released code has no checkpoints of method {settings.method!r}",
            f"It has them of: {', '.join((*FORMS, UNIMODAL))}",
        )
    if settings.dataset not in DATASETS:
        raise AmstError(
            f"the released code does not know the dataset {settings.dataset!r}",
            f"It knows {', '.join(DATASETS)}",
        )
    text = any(modality.kind == "text" for modality in settings.modalities.values())
    width = 768 if text else 512
    if settings.embedding != width and settings.method != UNIMODAL:
        raise AmstError(
            f"the released code builds {settings.dataset} with embeddings of length {width}, not "
            f"{settings.embedding}"
        )
