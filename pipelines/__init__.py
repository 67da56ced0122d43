"""Batch pipelines on Ray, one `run(config)` each."""
