"""The files of a study: a Snakemake workflow, its settings, and a profile for SLURM."""
