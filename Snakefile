"""AMST suite: raw media -> features -> one training job per run -> tables.

snakemake                                    everything of config.yaml, on this machine
snakemake results/tables/main.csv            one target
snakemake --profile profiles/slurm           the same graph as SLURM jobs
snakemake --configfile workflow/configs/paper.yaml -n      the paper's grid, planned
"""

import sys
from pathlib import Path

from snakemake.utils import min_version

min_version("9.27")

# Not workflow.basedir, which is that of another Snakefile that takes this one as a module.
HERE = Path(str(workflow.current_basedir))
sys.path.insert(0, str(HERE / "src"))


# That of the working folder where it has one, which is what `amst` reads, too.
OWN = Path("config.yaml")


configfile: OWN if OWN.is_file() else HERE / OWN


report: "workflow/report/workflow.rst"


include: "workflow/grid.smk"
include: "workflow/controller.smk"
include: "workflow/rules/container.smk"
include: "workflow/rules/prepare.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/results.smk"


rule all:
    default_target: True
    input:
        "results/grid.json",
        FEATURES,
        lost_files(),
        TABLES,
        FIGURES,
    message:
        "Everything is there: results/tables/main.md, results/figures, results/features/*/report.html"
