"""The image that all computing rules share, used with --sdm apptainer."""

from amst.cluster.image import bind, build, check_whole, image_name, note_digest
from amst.provenance import COMMIT, commit

# A published image by its address, or the one built here. Nothing has the image as input, which
# would make a run inside the container and one outside differ in their inputs.
IMAGE = CONFIG.container.image or f"containers/{image_name(HERE)}"


container: IMAGE


def bind_roots():
    """Let the container see the checkout and every configured folder that lies elsewhere."""
    roots = [raw_root(name) for name in CONFIG.datasets]
    roots += [entry.lists for entry in CONFIG.datasets.values() if entry.lists]
    roots += filter(None, [os.path.expandvars(CONFIG.execution.stage)])
    for name in CONFIG.grid.datasets:
        for modality in grid.modalities_of(CONFIG, name).values():
            models = (
                getattr(modality.features, "tokenizer", ""),
                getattr(modality.encoder, "weights", ""),
            )
            roots += [model for model in models if os.path.isdir(model)]
    try:
        bind(HERE, [Path(root) for root in roots])
    except AmstError as error:
        sys.exit(f"amst: {error}")


if IN_CONTAINER:
    bind_roots()
    note_digest(IMAGE)


def missing_image():
    """The local image that jobs need and that is not there, or None."""
    local = IN_CONTAINER and "://" not in IMAGE
    return IMAGE if local and not os.path.exists(IMAGE) else None


onstart:
    # again: a call that began at the same time may have written over it
    alone = controllers.note(Path(".snakemake"), ME)
    snapshot.keep_configuration(config, alone)
    os.environ[COMMIT] = commit()
    # Once per call, before the first job: whatever would make every job fail.
    if not IN_CONTAINER and find_spec("torch") is None:
        raise WorkflowError(
            "The light set-up plans and does not run: torch is not installed. "
            "Set everything up by `make environment`, or run in the image (--sdm apptainer)"
        )
    planned = list(workflow.dag.needrun_jobs())
    to_run = {(job.rule.name, job.wildcards_dict.get("dataset")) for job in planned}
    absent = missing_roots(
        {name for rule, name in to_run if rule in ("samples", "extract")}
    )
    if absent:
        raise WorkflowError("\n".join(["Raw data are missing:", *absent]))
    lost = lost_shards(planned) if workflow.is_main_process else []
    if lost:
        raise WorkflowError(
            f"Shards that the runs train on are missing: {lost[0]}"
            + (f" and {len(lost) - 1} more" if len(lost) > 1 else "")
            + ". A call without targets makes them again, as does one that names them: "
            + f"`snakemake {lost[0]}`"
        )
    if workflow.is_main_process and not workflow.touch:
        if anew := trained_anew(planned):
            print(f"amst: {anew}", file=sys.stderr)
    for name in sorted({owner(each) for each in CONFIG.grid.datasets}):
        if left_of(name):
            print(f"Raw data are missing: {left_of(name)}", file=sys.stderr)
    if missing_image() and CONFIG.container.image:
        raise WorkflowError(
            f"container.image: there is no file {os.path.abspath(IMAGE)}. Give the path of an "
            "image, or leave the key out: the image is then built here"
        )
    if missing_image():
        # by its full name: Snakemake may run in another folder than the checkout
        built = os.path.realpath(IMAGE)
        print(
            f"Building {IMAGE}, once for this definition and these packages",
            file=sys.stderr,
        )
        try:
            build(HERE, Path(built), CONFIG.container.build_args)
        except AmstError as error:
            raise WorkflowError(str(error)) from None
        note_digest(IMAGE)
    elif IN_CONTAINER and "://" not in IMAGE:
        try:
            check_whole(Path(IMAGE))
        except AmstError as error:
            raise WorkflowError(str(error)) from None
