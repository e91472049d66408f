"""Run records -> tables and figures."""

TABLES = [
    f"results/tables/{name}.{form}" for name in TABLE_NAMES for form in TABLE_FORMS
]
FIGURES = [
    f"results/figures/{name}-{dataset}.{form}"
    for dataset in CONFIG.grid.datasets
    for name in FIGURE_NAMES
    for form in FIGURE_FORMS
]


# A checkpoint, as those of prepare.smk: written again with the same content, it moves nothing.
checkpoint grid:
    output:
        "results/grid.json",
    log:
        "logs/grid.log",
    benchmark:
        "benchmarks/grid.tsv"
    # before the runs, which may take all cores for days: `amst status` asks whose runs they are
    priority: 1
    localrule: True
    resources:
        mem_mb=500,
        runtime=5,
    params:
        # a function: the hashes of all runs are not worked out in the job of every one of them
        grid=lambda w: as_json(planned_grid()),
    message:
        "Writing down the grid"
    run:
        write_text(output[0], params.grid)


rule tables:
    input:
        grid="results/grid.json",
        runs=RUNS,
        above=[ancient(path) for path in CHECKPOINTS],
    output:
        [
            (
                in_report(path, Path(path).stem, "Tables", table=Path(path).stem)
                if path.endswith(".html")
                else path
            )
            for path in TABLES
        ],
    log:
        "logs/tables.log",
    benchmark:
        "benchmarks/tables.tsv"
    resources:
        mem_mb=growing(2000),
        runtime=growing(30),
    params:
        published=sha256_of(PUBLISHED),
        # a function: jobs of other rules must not mind when this code changes (CodeOfCall)
        made_by=lambda w: made_by("amst.results.tables"),
    message:
        "Merging the run records into tables"
    shell:
        "python -m amst tables --grid {input.grid} &> {log}"


rule figures:
    input:
        # what the figures take of it is a parameter: the metric of the tables is nothing to them
        grid=ancient("results/grid.json"),
        runs=RUNS,
        above=[ancient(path) for path in CHECKPOINTS],
    output:
        [
            (
                in_report(
                    path,
                    Path(path).stem.split("-")[0],
                    "Figures",
                    figure=Path(path).stem,
                )
                if path.endswith(".png")
                else path
            )
            for path in FIGURES
        ],
    log:
        "logs/figures.log",
    benchmark:
        "benchmarks/figures.tsv"
    resources:
        mem_mb=growing(2000),
        runtime=growing(30),
    params:
        # a function, for the same reason as in rule grid
        grid=lambda w: as_json(
            {k: v for k, v in planned_grid().items() if k != "metric"}
        ),
        made_by=lambda w: made_by("amst.results.figures"),
    message:
        "Drawing the figures"
    shell:
        "python -m amst figures --grid {input.grid} &> {log}"


# Whatever ended the call: what is there can be looked at.
onerror:
    if os.path.isdir("results/runs"):
        # of this call: that in results may be an earlier one's
        with tempfile.NamedTemporaryFile("w", suffix=".json") as planned:
            planned.write(as_json(planned_grid()))
            planned.flush()
            shell(
                "python -m amst tables --grid {planned.name:q} --partial 1>&2 || true"
            )
    if NOTES_IN_FILES:
        forget_seen(Path())
