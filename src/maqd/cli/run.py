"""`maqd run`."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from maqd.cli.options import Options, UsageError, some_path
from maqd.cli.text import note, table
from maqd.errors import DataError
from maqd.graph import container
from maqd.io.images import decoded, fit, losses, open_encoded, to_array
from maqd.runtime import ENGINES, default_engine, find_engine


def command(arguments: list[str]) -> int:
    """Run `maqd run`; the exit status."""
    parser = Options(
        usage="maqd run GRAPH IMAGE... [--top N] [--resize] [--engine NAME] [--json]",
        description="Classify images: the best classes with their integer logits and scores.",
    )
    parser.add_argument("graph", metavar="GRAPH", type=some_path, help="a .maqd file")
    parser.add_argument(
        "images", metavar="IMAGE", type=some_path, nargs="+", help="image files, folders of them, or .npy of uint8"
    )
    parser.add_argument("--top", metavar="N", type=int, default=5, help="how many classes (5)")
    parser.add_argument("--resize", action="store_true", help="resize the middle square of images of another size")
    parser.add_argument(
        "--engine",
        choices=list(ENGINES),
        help="what computes (native, or numpy where that was not built)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.read(arguments)
    if options.top < 1:
        raise UsageError(f"--top must be at least 1, got {options.top}")
    graph = container.load(options.graph)
    engine = (find_engine(options.engine) if options.engine else default_engine()).make(graph)
    named, failed = _images(options.images, graph.input.shape, resize=options.resize)
    if not named:
        return 1
    images = np.stack([image for _, image in named])
    found = []
    for (name, _), classes in zip(named, engine.classify(images, top=options.top), strict=True):
        best = [{"class": one.index, "label": one.label, "logit": one.logit, "score": one.score} for one in classes]
        found.append({"image": name, "classes": best})
    if options.json:
        print(json.dumps({"graph": str(options.graph), "engine": engine.name, "images": found}))
        return 1 if failed else 0
    rows = [
        (entry["image"] if place == 0 else "", item["label"], item["logit"], item["score"])
        for entry in found
        for place, item in enumerate(entry["classes"])
    ]
    print(table(("image", "class", "logit", "score"), rows))
    return 1 if failed else 0


def _images(
    paths: Sequence[Path], shape: tuple[int, ...], *, resize: bool
) -> tuple[list[tuple[str, NDArray[np.uint8]]], bool]:
    """Images by name, of files and of what is in folders; and whether any of them could not be read."""
    found: list[tuple[str, NDArray[np.uint8]]] = []
    failed = False
    for path in paths:
        files = [path]
        if path.is_dir():
            files = sorted(file for file in path.iterdir() if file.is_file() and not file.name.startswith("."))
        if not files:
            print(f"maqd: error: {path} is a folder without files; pass images", file=sys.stderr)
            failed = True
        for file in files:
            try:
                batch = read_array(file, shape) if file.suffix == ".npy" else [read_image(file, shape, resize=resize)]
            except DataError as error:
                # The other images are worth their answers.
                print(f"maqd: error: {' '.join(str(error).split())}", file=sys.stderr)
                failed = True
                continue
            names = [str(file)] if len(batch) == 1 else [f"{file}[{number}]" for number in range(len(batch))]
            found += zip(names, batch, strict=True)
    return found, failed


def read_image(path: Path, shape: tuple[int, ...], *, resize: bool) -> NDArray[np.uint8]:
    """An image file as uint8 of a network's input shape C x H x W.

    Raises:
        DataError: It is missing, damaged, or has another size and is not to be resized.
    """
    if len(shape) != 3 or shape[0] not in (1, 3):
        raise DataError(f"{path}: the network takes arrays of shape {shape}, no images; pass them as uint8 .npy files")
    try:
        encoded = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}; pass an image file") from error
    image = open_encoded(encoded, str(path))
    for lost in losses(image):
        note(f"{path}: {lost}")
    channels, height, width = shape
    if image.size == (width, height):
        pixels = to_array(decoded(image, channels, str(path)))
    elif resize and height == width:
        pixels = to_array(fit(decoded(image, channels, str(path)), width))
    else:
        remedy = "pass --resize" if height == width else "resize the image"
        raise DataError(
            f"{path}: the network takes images of {width} x {height} pixels, got {image.size[0]} x {image.size[1]}; "
            f"{remedy}"
        )
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def read_array(path: Path, shape: tuple[int, ...]) -> list[NDArray[np.uint8]]:
    """The uint8 arrays of a .npy file, one or a batch, as a network's input shape, channels first.

    Raises:
        DataError: It is missing, damaged, or has another shape or type.
    """
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path} cannot be read as an array: {error}; save it with numpy.save") from error
    last = (*shape[1:], shape[0])
    if isinstance(array, np.ndarray) and array.dtype == np.uint8 and array.shape[-len(shape) :] in (shape, last):
        batch = array if array.ndim == len(shape) + 1 else array[None]
        if batch.ndim == len(shape) + 1 and len(batch):
            first = batch if batch.shape[1:] == shape else np.moveaxis(batch, -1, 1)
            return list(np.ascontiguousarray(first))
    got = f"{array.dtype} of shape {array.shape}" if isinstance(array, np.ndarray) else "an archive"
    raise DataError(
        f"{path}: the network takes uint8 of shape {shape}, or {last} with the channels last, or a batch of these, "
        f"got {got}"
    )
