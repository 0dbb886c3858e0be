"""Training and evaluation on Lightning's Trainer: configuration, run directories, checkpoints, metrics.

Start with `maqd.training.train.train`; `maqd.training.runs.open_run` gives the configuration, metrics, network and
graph of a run.
"""
