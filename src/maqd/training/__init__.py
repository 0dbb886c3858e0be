"""Training and evaluation on Lightning's Trainer: configuration, run directories, checkpoints, metrics.

`maqd.settings.training` needs no PyTorch. Start with `maqd.training.train.train` and
`maqd.training.evaluate.evaluate_run`; `maqd.training.checkpoint.load_network` gives other parts of the package the
trained network of a run.
"""
