"""Training: configuration, loop, checkpoints, metrics, results. Imports nothing: `--help` must not import torch."""
