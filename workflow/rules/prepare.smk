"""Raw media -> list of samples -> shards -> manifest, splits and data report.

Samples, splits, manifests (and the grid) are checkpoints, so that what depends on them is looked
at anew when they were made again: with the same content they move nothing. A lost shard is
extracted again, and no run repeats. For that a rule must name every such file above it as input,
as ``ancient`` where only another file's content matters to it.
"""

FEATURES = [
    *CHECKPOINTS,
    *(f"results/raw/{name}/{name}.json" for name in OWNERS if name in GENERATED),
    *(
        f"results/features/{name}/{file}"
        for name in OWNERS
        for file in (
            "samples.json",
            "rejected.jsonl",
            "report.html",
            "report.json",
            *(
                f"shards/{s}.{end}"
                for s in shards_of(name)
                for end in ("h5", "rejected.jsonl")
            ),
        )
    ),
]


rule generate:
    output:
        "results/raw/{generated}/{generated}.json",
    log:
        "logs/generate/{generated}.log",
    benchmark:
        "benchmarks/generate/{generated}.tsv"
    resources:
        mem_mb=growing(2000),
        runtime=growing(10),
    params:
        raw=lambda w: raw_root(w.generated),
        settings=lambda w: as_json(CONFIG.datasets[w.generated].generate),
        made_by=lambda w: made_by(registry.module(w.generated)),
    message:
        "Making the raw files of {wildcards.generated}"
    shell:
        "python -m amst generate {wildcards.generated} --raw {params.raw:q} "
        "--settings {params.settings:q} &> {log}"


checkpoint samples:
    input:
        lambda w: (
            [f"results/raw/{w.dataset}/{w.dataset}.json"]
            if w.dataset in GENERATED
            else []
        ),
    output:
        samples="results/features/{dataset}/samples.jsonl",
        rejected="results/features/{dataset}/rejected.jsonl",
        summary="results/features/{dataset}/samples.json",
    log:
        "logs/samples/{dataset}.log",
    benchmark:
        "benchmarks/samples/{dataset}.tsv"
    resources:
        mem_mb=growing(2000),
        runtime=growing(30),
    params:
        raw=lambda w: raw_root(w.dataset),
        options=lambda w: as_json(CONFIG.datasets[w.dataset].options),
        files=lambda w: files_digest(w.dataset),
        made_by=lambda w: made_by("amst.features.samples", registry.module(w.dataset)),
    message:
        "Listing the samples of {wildcards.dataset}"
    shell:
        "python -m amst samples {wildcards.dataset} --raw {params.raw:q} "
        "--options {params.options:q} --out {output.samples} --rejected {output.rejected} &> {log}"


rule extract:
    input:
        # the rows of this shard are a parameter: other rows of the list do not matter here
        samples=ancient("results/features/{dataset}/samples.jsonl"),
        pretrained=lambda w: tokenizers(w.dataset),
    output:
        shard="results/features/{dataset}/shards/{shard}.h5",
        rejected="results/features/{dataset}/shards/{shard}.rejected.jsonl",
    log:
        "logs/extract/{dataset}/{shard}.log",
    benchmark:
        "benchmarks/extract/{dataset}/{shard}.tsv"
    resources:
        mem_mb=growing(3000),
        runtime=growing(60),
    params:
        raw=lambda w: raw_root(w.dataset),
        shards=lambda w: CONFIG.datasets[w.dataset].shards,
        options=lambda w: as_json(CONFIG.datasets[w.dataset].options),
        features=lambda w: feature_settings(w.dataset),
        rows=lambda w: rows_digest(w.dataset, int(w.shard)),
        generated=lambda w: as_json(CONFIG.datasets[w.dataset].generate),
        facts=lambda w: as_json(reader(w.dataset).fingerprint()),
        made_by=lambda w: made_by("amst.features.extract", *makers(w.dataset)),
    message:
        "Extracting shard {wildcards.shard} of {wildcards.dataset}"
    shell:
        "python -m amst extract {wildcards.dataset} {wildcards.shard} --of {params.shards} "
        "--raw {params.raw:q} --samples {input.samples} "
        "--options {params.options:q} --features {params.features:q} "
        "--out {output.shard} --rejected {output.rejected} &> {log}"


checkpoint manifest:
    input:
        # a list with other samples has changed their shards, too
        samples=ancient("results/features/{dataset}/samples.jsonl"),
        shards=lambda w: [
            f"results/features/{w.dataset}/shards/{s}.h5" for s in shards_of(w.dataset)
        ],
        rejected=lambda w: [
            f"results/features/{w.dataset}/rejected.jsonl",
            *(
                f"results/features/{w.dataset}/shards/{s}.rejected.jsonl"
                for s in shards_of(w.dataset)
            ),
        ],
    output:
        "results/features/{dataset}/manifest.json",
    log:
        "logs/manifest/{dataset}.log",
    benchmark:
        "benchmarks/manifest/{dataset}.tsv"
    resources:
        mem_mb=growing(2000),
        runtime=growing(60),
    params:
        shards=lambda w: CONFIG.datasets[w.dataset].shards,
        options=lambda w: as_json(CONFIG.datasets[w.dataset].options),
        features=lambda w: feature_settings(w.dataset),
        max_lost=lambda w: CONFIG.datasets[w.dataset].max_lost,
        made_by=lambda w: made_by("amst.features.verification"),
    message:
        "Verifying the shards of {wildcards.dataset}"
    shell:
        "python -m amst manifest {wildcards.dataset} --folder results/features/{wildcards.dataset} "
        "--shards {params.shards} --options {params.options:q} --features {params.features:q} "
        "--max-lost {params.max_lost} --out {output} &> {log}"


checkpoint split:
    input:
        samples="results/features/{dataset}/samples.jsonl",
        rejected="results/features/{dataset}/rejected.jsonl",
        lists=lambda w: lists_of(w.dataset, w.split),
    output:
        "results/features/{dataset}/splits/{split}.json",
    log:
        "logs/split/{dataset}/{split}.log",
    benchmark:
        "benchmarks/split/{dataset}/{split}.tsv"
    resources:
        mem_mb=growing(2000),
        runtime=growing(10),
    params:
        seed=lambda w: CONFIG.datasets[w.dataset].split_seed,
        lists=lambda w: CONFIG.datasets[w.dataset].lists or f"{STAGED}/lists",
        made_by=lambda w: made_by("amst.datasets.splits", registry.module(w.dataset)),
    message:
        "Cutting {wildcards.dataset} into the parts of split {wildcards.split}"
    shell:
        "python -m amst split {wildcards.dataset} {wildcards.split} --seed {params.seed} "
        "--lists {params.lists:q} --folder results/features/{wildcards.dataset} --out {output} "
        "&> {log}"


rule fetch_lists:
    output:
        f"{STAGED}/lists/{{folder}}/{{file}}.txt",
    log:
        "logs/fetch_lists/{folder}/{file}.log",
    benchmark:
        "benchmarks/fetch_lists/{folder}/{file}.tsv"
    # Compute nodes often have no network; this runs where Snakemake runs.
    localrule: True
    resources:
        mem_mb=500,
        runtime=10,
    params:
        dataset=lambda w: next(
            name
            for name, files in LISTS.items()
            if f"{w.folder}/{w.file}.txt" in {file.path for file in files}
        ),
    message:
        "Fetching the published list {wildcards.folder}/{wildcards.file}"
    shell:
        "python -m amst fetch-lists {params.dataset} &> {log}"


rule fetch_model:
    output:
        f"{STAGED}/models/{{model}}/{LOCK}",
    log:
        "logs/fetch_model/{model}.log",
    benchmark:
        "benchmarks/fetch_model/{model}.tsv"
    localrule: True
    resources:
        mem_mb=500,
        runtime=60,
    message:
        "Fetching the pretrained model {wildcards.model}"
    shell:
        "python -m amst fetch-model {wildcards.model} &> {log}"


rule data_report:
    input:
        manifest="results/features/{dataset}/manifest.json",
        samples="results/features/{dataset}/samples.jsonl",
        summary="results/features/{dataset}/samples.json",
        splits=lambda w: [
            f"results/features/{w.dataset}/splits/{split}.json"
            for split in splits_on(w.dataset)
        ],
    output:
        # not in Snakemake's report, which is to be sent: its pictures are of the data
        html="results/features/{dataset}/report.html",
        json="results/features/{dataset}/report.json",
    log:
        "logs/data_report/{dataset}.log",
    benchmark:
        "benchmarks/data_report/{dataset}.tsv"
    resources:
        mem_mb=growing(2000),
        runtime=growing(30),
    params:
        made_by=lambda w: made_by("amst.features.report", registry.module(w.dataset)),
    message:
        "Describing the data of {wildcards.dataset}"
    shell:
        "python -m amst data-report {wildcards.dataset} {input.splits} "
        "--folder results/features/{wildcards.dataset} &> {log}"
