"""One training job per run of the grid."""


rule train:
    input:
        unpack(run_inputs),
    output:
        # a list, which in a large grid is quicker than names
        [
            f"results/runs/{{dataset}}/{{split}}/{{variant}}/seed{{seed}}/{file}"
            for file in RUN_FILES
        ],
    log:
        "logs/train/{dataset}/{split}/{variant}/seed{seed}.log",
    benchmark:
        "benchmarks/train/{dataset}/{split}/{variant}/seed{seed}.tsv"
    threads: looked_at(lambda w: CONFIG.datasets[w.dataset].resources.threads)
    resources:
        **of_site(),
        gpu=looked_at(lambda w: SITE.gpus(gpus(w))) if SITE else gpus,
        mem_mb=memory,
        runtime=looked_at(lambda w: CONFIG.datasets[w.dataset].resources.runtime),
    params:
        settings=run_settings,
        made_by=training_code,
    message:
        "Training {wildcards.variant} on {wildcards.dataset} ({wildcards.split}), seed {wildcards.seed}"
    # Without `exec` there would be a shell around the run that dies of SLURM's SIGTERM: the job
    # would end as failed while the run still waits to be killed, and SLURM would not put it back
    # into the queue.
    shell:
        "exec python -m amst train {wildcards.dataset}/{wildcards.split}/{wildcards.variant}/seed{wildcards.seed} "
        "--settings {params.settings:q} --manifest {input.manifest} --split {input.split} "
        "--log {log} &>> {log}"
