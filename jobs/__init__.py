"""Commands, one a file: `python -m jobs.NAME` on a cluster, `cellular …` in a shell."""
