"""The grid: which datasets, variants and seeds run, and what every rule needs to know of them."""

import inspect
import json
import os
import re
import shlex
import sys
import tempfile
from functools import lru_cache
from importlib.util import find_spec

from snakemake.exceptions import WorkflowError
from snakemake.settings.types import DeploymentMethod, PersistenceBackend

from amst import grid
from amst.cluster import slots, snapshot
from amst.cluster.calls import this_call, why_closed
from amst.cluster.site import told_to_rules
from amst.config.run import settings_hash
from amst.controlgroups import own_cores
from amst.datasets import registry
from amst.datasets.lists import LISTS
from amst.errors import AmstError
from amst.features.samples import (
    raw_files,
    read_samples,
    read_summary,
    remainder,
    samples_of_shards,
)
from amst.features.verification import lost_in_list
from amst.files import sha256_of, write_text
from amst.grid.adoptions import Adoptions
from amst.grid.replaced import replaced
from amst.grid.stale_data import generated_otherwise
from amst.grid.unseen import has_no_note, hidden_change
from amst.pretrained import LOCK, STAGED, model_folder
from amst.provenance import (
    code_digest,
    shadowed_packages,
    training_digest,
    with_packages,
)
from amst.records import RUN_FILES
from amst.training.kills import kills
from amst.results.names import (
    FIGURE_FORMS,
    FIGURE_NAMES,
    PUBLISHED,
    TABLE_FORMS,
    TABLE_NAMES,
)


def config_files():
    """The files of the configuration, each merged over those before it."""
    over = [Path(file) for file in workflow.overwrite_configfiles]
    own = [Path(file) for file in workflow.configfiles if Path(file) not in over]
    settings = workflow.config_settings
    if settings.replace_workflow_config and settings.overwrite_config:
        own = []
    return [Path(os.path.relpath(file)) for file in (*own, *over)]


try:
    if not workflow.is_main_process:
        snapshot.take_configuration(config)
    CONFIG = (
        grid.check_config(config, config_files(), workflow.config_settings.config)
        if workflow.is_main_process
        else grid.check_config(config)
    )
except AmstError as error:
    sys.exit(f"amst: {error}")

RESOLVE = grid.Resolver(CONFIG)
# A run that is asked for by name and cannot be: said in a line, not as an exception of a rule.
for _asked in this_call().targets if workflow.is_main_process else ():
    if _cell := grid.Cell.of_file(_asked):
        try:
            RESOLVE.text(_cell)
        except AmstError as error:
            sys.exit(f"amst: {_asked}: {error}")

CELLS = grid.cells(CONFIG)
# Datasets whose shards the grid needs: IEMOCAP, for one, reads those of IEMOCAP3.
OWNERS = sorted({grid.features_owner(CONFIG, name) for name in CONFIG.grid.datasets})
GENERATED = sorted(
    name for name, d in CONFIG.datasets.items() if d.generate is not None
)
IN_CONTAINER = (
    DeploymentMethod.APPTAINER in workflow.deployment_settings.deployment_method
)


# Names that exist, so that Snakemake says of a target with another one that no rule makes it.
wildcard_constraints:
    dataset="|".join(CONFIG.datasets),
    generated="|".join(GENERATED) or "none",
    split="|".join(
        sorted(
            {
                re.escape(split)
                for name in CONFIG.datasets
                for split in registry.load(name).splits
            }
        )
    ),
    variant="|".join(map(re.escape, RESOLVE.variants)),
    seed=r"0|[1-9]\d*",
    shard=r"\d{3}",


def as_json(value):
    """A value as a rule's parameter and a command's argument, the same text every time."""
    return json.dumps(value, sort_keys=True)


# A local run without --cores uses every core it may. A cluster run always has --jobs, and must
# not be capped; the jobs of either get --cores from their controller.
if (
    workflow.resource_settings.cores is None
    and workflow.resource_settings.nodes is None
):
    workflow.resource_settings.cores = own_cores()
    workflow.global_resources["_cores"] = workflow.resource_settings.cores

# How runs are executed reaches them by the environment: no parameter, so no change trains anew.
# A SLURM job has its node's share for itself; the call inside it runs one job.
_local = workflow.is_main_process and workflow.resource_settings.cores
_together = slots.on_node(
    [CONFIG.datasets[name].resources for name in CONFIG.grid.datasets],
    workflow.resource_settings.cores if _local else 1,
    workflow.global_resources.get("gpu").value,
)
if not workflow.subprocess_exec:
    execution = CONFIG.execution.model_dump()
    execution |= {"runs_on_node": _together, "runs_on_gpu": slots.per_gpu()}
    # Snakemake deletes a run's files before it starts the run's job again
    execution |= {"keep": True}
    os.environ.update(AMST_EXECUTION=as_json(execution))

os.environ[slots.WITHOUT_GPU] = " ".join(
    name for name, entry in CONFIG.datasets.items() if not entry.resources.gpu
)

# Snakemake starts its jobs by the path of its Python as it stands, which a shell takes apart.
if workflow.is_main_process and this_call().runs and re.search(r"\s", sys.executable):
    sys.exit(
        f"amst: {sys.executable}, the Python of this call, has white space in its path, and "
        "Snakemake cannot start jobs with it. Set the environment up in a folder without"
    )

# Snakemake and what follows here would end in a traceback.
if workflow.is_main_process and (this_call().runs or workflow.output_settings.dryrun):
    if _closed := why_closed(Path()):
        sys.exit(f"amst: {_closed}")

# A file of the working folder, statistics.py say, is no module of Python's: neither for the commands
# of rules nor for Snakemake in its jobs.
os.environ.setdefault("PYTHONSAFEPATH", "1")
# The package runs from the checkout, in any working directory. Outside the container, rules use
# the Python that runs Snakemake.
_bin, _src = shlex.quote(os.path.dirname(sys.executable)), f"{HERE}/src"
_path = "" if IN_CONTAINER else f"PATH={_bin}:$PATH "
# Snakemake looks for names in braces in what stands before the commands.
_prefix = f"set -euo pipefail; export {_path}PYTHONPATH={shlex.quote(_src)} PYTHONNOUSERSITE=1; "
shell.prefix(_prefix.replace("{", "{{").replace("}", "}}"))


def looked_at(function):
    """A function of a rule that says what it takes; Snakemake else looks anew for every job."""
    function.__signature__ = inspect.signature(function)
    return function


CODE = snapshot.CodeOfCall(is_job=not workflow.is_main_process)


@lru_cache(maxsize=None)
def made_by(*modules):
    """Digest of the code of a step and of the installed packages: a change reruns the step."""
    code = CODE.same("+".join(modules), lambda: code_digest(*modules))
    return with_packages(code)


@lru_cache(maxsize=None)
def training_code_of(method):
    """Digest of the code that trains a method."""
    return CODE.same(f"training {method}", lambda: training_digest(method))


def growing(amount):
    """A resource that doubles with every attempt, three times at most."""
    return lambda wildcards, attempt: amount * 2 ** min(attempt - 1, 3)


def in_report(path, caption, category, **labels):
    """Whether and how an output stands in the report."""
    return report(
        path, caption=f"../report/{caption}.rst", category=category, labels=labels
    )


def raw_root(dataset):
    """Raw folder of a dataset as the configuration gives it."""
    return str(grid.raw_root(CONFIG, dataset))


def missing_roots(datasets):
    """One line for every dataset whose raw folder is not there, or no more as it was."""
    read = [name for name in sorted(datasets) if name not in GENERATED]
    absent = [
        f"  {name}: there is no folder {raw_root(name)}; set datasets.{name}.raw "
        f"({registry.load(name).page} says how to get the data)"
        for name in read
        if not os.path.isdir(raw_root(name))
    ]
    return absent + [f"  {left_of(name)}" for name in read if left_of(name)]


@lru_cache(maxsize=None)
def files_of(dataset):
    """What lies in the raw folder, looked at once in a call: it may take minutes.

    What changes later is seen by the next call: the list says what it was made of.
    """
    return raw_files(reader(dataset), Path(raw_root(dataset)))


def left_of(dataset):
    """What is wrong where a raw folder is only what is left of the one that was listed."""
    if dataset in GENERATED or not os.path.isdir(raw_root(dataset)):
        return ""
    return _left_of(dataset, files_of(dataset))


@lru_cache(maxsize=None)
def _left_of(dataset, now):
    root, listed = Path(raw_root(dataset)), list_of(dataset)
    max_lost = CONFIG.datasets[dataset].max_lost
    why = remainder(reader(dataset), root, now, listed, max_lost)
    return why and (
        f"{dataset}: {why}. Bring them back; or accept the loss by datasets.{dataset}.max_lost, "
        f"or delete {listed} to list and extract anew what is there"
    )


def owner(dataset):
    """The dataset whose shards and splits a dataset uses."""
    return grid.features_owner(CONFIG, dataset)


def shards_of(dataset):
    """Numbers of a dataset's shards as they stand in file names."""
    return [f"{shard:03d}" for shard in range(CONFIG.datasets[dataset].shards)]


def splits_on(dataset):
    """Splits of the grid that are cut from a dataset's samples."""
    users = [name for name in CONFIG.grid.datasets if owner(name) == dataset]
    return sorted({split for name in users for split in CONFIG.datasets[name].splits})


def feature_settings(dataset):
    """Settings of all modalities' stored features, as JSON."""
    features = grid.features_of(CONFIG, dataset)
    return as_json(
        {name: settings.model_dump(mode="json") for name, settings in features.items()}
    )


def files_digest(dataset):
    """What lies in the raw folder now; a folder that is gone counts as it was when it was read.

    So does one of which too much is gone.
    """
    listed = list_of(dataset)
    if os.path.isdir(raw_root(dataset)):
        now = files_of(dataset)
        if not _left_of(dataset, now):
            return now
    try:
        return read_summary(listed).raw_files
    except AmstError:
        return ""


def was_changed(dataset):
    """Whether the raw files that are there are not those that were listed."""
    try:
        return files_digest(dataset) != read_summary(list_of(dataset)).raw_files
    except AmstError:
        return False  # not there, or damaged: Snakemake makes it again


def reader(dataset):
    """The dataset with its options."""
    return registry.load(dataset, CONFIG.datasets[dataset].options)


def makers(dataset):
    """Modules that make the raw files, where the suite does; of a reader its rows say it all."""
    return [registry.module(dataset)] if registry.load(dataset).is_made else []


def list_of(dataset):
    """The list of a dataset's samples."""
    return Path(f"results/features/{dataset}/samples.jsonl")


@lru_cache(maxsize=None)
def _rows(path, modified, dataset, shards):
    return samples_of_shards(read_samples(path), registry.load(dataset), shards)


def rows_digest(dataset, shard):
    """Digest of the rows of one shard in the list of samples, as it is now.

    Snakemake compares with an earlier call only parameters that it works out without the inputs,
    and works them out anew when the checkpoint that makes the list has run.
    """
    path, shards = list_of(dataset), CONFIG.datasets[dataset].shards
    try:
        modified = path.stat().st_mtime_ns
        rows = _rows(path, modified, dataset, shards)
        tell_of_losses(dataset, modified)
    except (OSError, AmstError):
        # not there, or damaged: it is made before the shard
        return ""
    cut = {"part", "parts"}  # features do not depend on how the dataset is cut
    return settings_hash([row.model_dump(exclude=cut) for row in rows[shard]])


@lru_cache(maxsize=None)
def tell_of_losses(dataset, modified):
    """Say before the extraction that what it makes will be refused, once for each list."""
    max_lost = CONFIG.datasets[dataset].max_lost
    try:
        lost = lost_in_list(reader(dataset), list_of(dataset), max_lost)
    except AmstError:
        return  # what is beside the list is gone: it is listed again
    if lost and workflow.is_main_process:
        print(
            f"amst: {lost}. What is extracted will be refused: mend the raw files, or accept the "
            f"loss by datasets.{dataset}.max_lost",
            file=sys.stderr,
        )


@lru_cache(maxsize=None)
def tokenizers(dataset):
    """Fetched models that a dataset's extraction reads."""
    return _fetched(grid.tokenizers_of(CONFIG, dataset))


@lru_cache(maxsize=None)
def weights(dataset, variant):
    """Fetched models that a variant's runs read: those of the modalities that it trains."""
    return _fetched(RESOLVE.pretrained(dataset, variant))


def _fetched(names):
    return [ancient(str(model_folder(name) / LOCK)) for name in names]


def lists_of(dataset, split):
    """The published lists that a split is read from: fetched, unless a local folder is given."""
    if split != "amst" or CONFIG.datasets[dataset].lists:
        return []
    return [f"{STAGED}/lists/{file.path}" for file in LISTS.get(dataset, ())]


RUNS = [f"results/runs/{cell.run}/run.json" for cell in CELLS]


@lru_cache(maxsize=None)
def planned_grid():
    """The grid as tables need to know of it, worked out once: all runs' hashes are in it."""
    return grid.as_dict(CONFIG)


def stop_for(unseen):
    """End a call that would run jobs, with a reason; a call that only looks is told of it."""
    if this_call().runs:
        sys.exit(f"amst: {unseen}")
    print(f"amst: {unseen}", file=sys.stderr)


# Everything would be made anew for packages that no job has.
if workflow.is_main_process and (_shadowed := shadowed_packages()):
    _more = f", and {len(_shadowed) - 1} more" if _shadowed[1:] else ""
    stop_for(
        f"PYTHONPATH has other packages than jobs get ({_shadowed[0]}{_more}), and all that is "
        "done would count as made with others: `unset PYTHONPATH`, which an environment module "
        "may have set, and call again"
    )


# Whether what Snakemake notes of its outputs are files in .snakemake.
NOTES_IN_FILES = (
    workflow.workflow_settings.persistence_backend == PersistenceBackend.FILE
)
_compares = this_call().compares
if workflow.is_main_process and (NOTES_IN_FILES or not _compares):
    if _unseen := hidden_change(
        Path("results/grid.json"),
        as_json(planned_grid()),
        Path(".snakemake"),
        _compares,
    ):
        stop_for(_unseen)

if workflow.is_main_process and NOTES_IN_FILES:
    for _name in OWNERS:
        _made = Path(f"results/raw/{_name}/{_name}.json")
        if has_no_note(_made, Path(".snakemake")) and generated_otherwise(
            CONFIG, _name
        ):
            stop_for(
                f"{_made} was made with other settings than datasets.{_name}.generate, and "
                "Snakemake does not see it: it has no note of how that was made. Set what the "
                f"file says, or delete {_made}"
            )
        if has_no_note(list_of(_name), Path(".snakemake")) and was_changed(_name):
            print(
                f"amst: the raw files of {_name} are not those of {list_of(_name)}, and Snakemake "
                f"does not see it: `amst check-data {_name}` says what to do",
                file=sys.stderr,
            )


def lost_files():
    """Files of runs that are asked for by name, since nothing else would bring them back.

    A finished run that has lost a file is made again; one whose record is gone, too, even where
    all tables and figures are there. Asking for the files of every run at all times would slow
    down the graph of a large grid.
    """
    if not workflow.is_main_process:
        return []
    ended = [path for path in RUNS if os.path.exists(path)]
    folders = [path.removesuffix("run.json") for path in ended]
    files = [f"{folder}{name}" for folder in folders for name in RUN_FILES]
    if all(map(os.path.exists, (*TABLES, *FIGURES))):
        files += RUNS
    return [file for file in files if not os.path.exists(file)]


def lost_shards(planned):
    """Shards of planned runs that are not there and that no planned job makes.

    Runs have only the manifest as input: as long as that is there, Snakemake misses none below it.
    """
    of = {
        owner(job.wildcards_dict["dataset"])
        for job in planned
        if job.rule.name == "train"
    }
    made = {
        file for job in planned if job.rule.name == "extract" for file in job.output
    }
    return [
        shard
        for name in sorted(of)
        for shard in (f"results/features/{name}/shards/{s}.h5" for s in shards_of(name))
        if shard not in made and not os.path.exists(shard)
    ]


# Outputs of checkpoints above the runs (see prepare.smk).
CHECKPOINTS = [
    f"results/features/{name}/{file}"
    for name in OWNERS
    for file in (
        "samples.jsonl",
        "manifest.json",
        *(f"splits/{split}.json" for split in splits_on(name)),
    )
]


def cell_of(wildcards):
    """The run of a training job."""
    return grid.Cell(
        wildcards.dataset, wildcards.split, wildcards.variant, int(wildcards.seed)
    )


@looked_at
def run_settings(wildcards):
    """Resolved settings of a run as JSON: all that its numbers depend on."""
    return RESOLVE.text(cell_of(wildcards))


@looked_at
def run_inputs(wildcards):
    """What a training job waits for, by name: one function for all, since each costs time."""
    folder = f"results/features/{owner(wildcards.dataset)}"
    models = weights(wildcards.dataset, wildcards.variant)
    return {
        "manifest": f"{folder}/manifest.json",
        "split": f"{folder}/splits/{wildcards.split}.json",
        # see prepare.smk: so that this is looked at anew when the list was made again
        "above": ancient(f"{folder}/samples.jsonl"),
        **({"pretrained": models} if models else {}),
    }


# Finished runs that a user declared valid under changed code or packages (`amst adopt`).
try:
    ADOPTIONS = Adoptions(Path("results"))
except AmstError as error:
    sys.exit(f"amst: {error}")


@looked_at
def training_code(wildcards):
    """Digest of the code that trains a run and of the packages, unless the run was adopted."""
    method = RESOLVE.variants[wildcards.variant].method
    made, cell = with_packages(training_code_of(method)), cell_of(wildcards)
    if cell.run in ADOPTIONS:
        folder = Path("results/features", owner(cell.dataset))
        data = folder / "manifest.json", folder / f"splits/{cell.split}.json"
        made = ADOPTIONS.made_by(cell.run, RESOLVE.hash(cell), made, data)
    return made


def trained_anew(planned):
    """One line about finished runs that this call deletes, for another reason than their data."""
    of_jobs = (job.wildcards for job in planned if job.rule.name == "train")
    there = (
        (of, cell)
        for of, cell in ((of, cell_of(of)) for of in of_jobs)
        if os.path.exists(f"results/runs/{cell.run}/run.json")
    )
    runs = ((cell.run, RESOLVE.hash(cell), training_code(of)) for of, cell in there)
    return replaced(Path("results"), runs)


# None without profiles/slurm.
SITE = told_to_rules()


@looked_at
def gpus(wildcards):
    """GPUs of a training job."""
    return CONFIG.datasets[wildcards.dataset].resources.gpu


@looked_at
def memory(wildcards, attempt):
    """Megabytes of a training job, at most threefold.

    Grows with the attempts that were killed without a word, as for want of memory; those that a
    time limit or a pre-emption has ended had enough.
    """
    own = CONFIG.datasets[wildcards.dataset].resources.mem_mb
    asked = (SITE and SITE.training_mem_mb) or own
    if attempt == 1:  # a file per run is not looked for while the graph is made
        return asked
    checkpoints = Path("results/checkpoints", cell_of(wildcards).run)
    return asked * min(1 + kills(checkpoints), 3)


def of_site():
    """Partition and GPUs as the site wants them asked for; nothing without profiles/slurm."""
    if not SITE:
        return {}
    return {
        "slurm_partition": looked_at(lambda w: SITE.partition(gpus(w))),
        "gpu_model": looked_at(lambda w: SITE.model(gpus(w))),
        "gres": looked_at(lambda w: SITE.gres(gpus(w))),
    }
