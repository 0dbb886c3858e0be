"""How long CIFAR-10 takes to open from a warm cache, and an augmented batch of 128 takes to make.

    python benchmarks/input_pipeline.py --path FOLDER [--step-ms 150] [--json]

FOLDER holds train.parquet and test.parquet; without it the set is fetched from the Hugging Face hub.
"""

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import PIL
import torch

import maqd
from maqd.data import AugmentConfig, DataConfig, Source, open_data

BATCH_SIZE = 128
AUGMENT = AugmentConfig(crop_padding=4, flip=True, cutout=8)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--path", help="folder of train.parquet and test.parquet")
    parser.add_argument("--cache-dir", help="cache to use and keep; a temporary one by default")
    parser.add_argument(
        "--step-ms", type=float, default=150.0, help="milliseconds of the training step to compare with"
    )
    parser.add_argument("--opens", type=int, default=9, help="how often the set is opened")
    parser.add_argument("--epochs", type=int, default=3, help="epochs of batches")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.cache_dir is not None:
        result = measure(options, options.cache_dir)
    else:
        with tempfile.TemporaryDirectory() as folder:
            result = measure(options, folder)
    if options.json:
        json.dump(result, sys.stdout)
        print()
        return
    for key, value in result.items():
        print(f"{key:<24} {value:.4g}" if isinstance(value, float) else f"{key:<24} {value}")


def measure(options: argparse.Namespace, cache_dir: str) -> dict[str, object]:
    """Opening times in seconds and batch times in milliseconds, as median and interquartile range."""
    config = DataConfig(
        source=Source.CIFAR10, path=options.path, cache_dir=cache_dir, batch_size=BATCH_SIZE, augment=AUGMENT
    )
    data, first_open = timed(lambda: open_data(config, seed=0))
    opens = [timed(lambda: open_data(config, seed=0))[1] for _ in range(options.opens)]
    loader = data.train_loader()
    batches = []
    for epoch in range(options.epochs):
        loader.set_epoch(epoch)
        # Whole epochs: the shuffle is paid for by each epoch's first batch.
        start = time.perf_counter()
        for _ in loader:
            end = time.perf_counter()
            batches.append(1e3 * (end - start))
            start = end
    return {
        "benchmark": "input_pipeline",
        "cpu": cpu_name(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "maqd": maqd.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "pillow": PIL.__version__,
        "train_size": data.info.train_size,
        "batch_size": BATCH_SIZE,
        "augment": f"crop_padding {AUGMENT.crop_padding}, flip, cutout {AUGMENT.cutout}",
        "first_open_s": first_open,
        "open_n": len(opens),
        "open_s_median": statistics.median(opens),
        "open_s_iqr": spread(opens),
        "open_s_max": max(opens),
        "batch_n": len(batches),
        "batch_ms_median": statistics.median(batches),
        "batch_ms_mean": statistics.fmean(batches),
        "batch_ms_iqr": spread(batches),
        "batch_ms_max": max(batches),
        "step_ms": options.step_ms,
        "batch_to_step_ratio": statistics.fmean(batches) / options.step_ms,
    }


def timed(function):
    """What the function returns, and the seconds it took."""
    start = time.perf_counter()
    result = function()
    return result, time.perf_counter() - start


def spread(values: list[float]) -> float:
    """Distance of the first and third quartile."""
    low, _, high = statistics.quantiles(values, n=4)
    return high - low


def cpu_name() -> str:
    """The processor's model, as far as the system tells."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor()
    )


if __name__ == "__main__":
    main()
