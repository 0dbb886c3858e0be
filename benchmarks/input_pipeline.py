"""How long CIFAR-10 takes to open from a warm cache, and what its batches cost beside a training step.

    python benchmarks/input_pipeline.py --path FOLDER [--json]

FOLDER holds train.parquet and test.parquet; without it the set is fetched from the Hugging Face hub. A batch is 128
images, cropped, flipped and cut out per sample; the step is that of train_step.py in bf16, the faster one, in the same
process and on the same single thread.
"""

import tempfile

import torch

from harness import machine, options_parser, print_json, print_machine, seconds, spread
from maqd.data import AugmentConfig, DataConfig, Source, open_data
from train_step import BATCH, make_step, quantized_vgg


def main() -> None:
    """Measures and prints."""
    parser = options_parser(__doc__, data=True)
    parser.add_argument("--opens", type=int, default=9, help="how often the set is opened")
    parser.add_argument("--batches", type=int, default=300, help="how many batches are timed")
    parser.add_argument("--steps", type=int, default=15, help="how many steps are timed")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        config = DataConfig(
            source=Source.CIFAR10,
            path=options.path,
            cache_dir=options.cache_dir or folder,
            batch_size=BATCH,
            augment=AugmentConfig(crop_padding=4, flip=True, cutout=8),
        )
        first = seconds(lambda: open_data(config, seed=0))
        opens = spread([seconds(lambda: open_data(config, seed=0)) for _ in range(options.opens)])
        data = open_data(config, seed=0)
    loader = iter(data.train_loader())
    images, labels = next(loader)  # the first batch pays for the epoch's shuffle: counted on its own
    shuffle = seconds(lambda: next(iter(data.train_loader())))
    batches = spread([seconds(lambda: next(loader)) for _ in range(options.batches)])
    step = make_step(quantized_vgg(), images, labels, bf16=True, compiled=False)
    step()
    steps = spread([seconds(step) for _ in range(options.steps)])
    batch_mean = batches.median + (shuffle - batches.median) / len(data.train_loader())
    figures: dict[str, object] = {
        "train_size": data.info.train_size,
        "first_open_seconds": first,
        "open_seconds": opens,
        "batch_seconds": batches,
        "first_batch_seconds": shuffle,
        "step_seconds": steps,
        "batch_to_step_ratio": batch_mean / steps.median,
    }
    where = machine()
    if options.json:
        print_json(where, figures)
        return
    for key, value in figures.items():
        print(f"{key:<22} {value:.4g}" if isinstance(value, float) else f"{key:<22} {value}")
    print_machine(where)


if __name__ == "__main__":
    main()
