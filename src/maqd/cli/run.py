"""`maqd run`."""

import io
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maqd.cli.graphs import load_graph
from maqd.cli.options import Options, UsageError, some_path, whole
from maqd.cli.text import note, table
from maqd.errors import DataError, EngineError
from maqd.graph import Graph, Input, Output
from maqd.io.arrays import SUFFIXES, read_arrays
from maqd.io.files import write_atomically
from maqd.io.images import read_image
from maqd.io.outputs import Artefact, check_output
from maqd.runtime import ENGINES, default_engine, find_engine
from maqd.runtime.engine import best_classes, value_of
from maqd.runtime.inputs import read_samples

BATCH = 100
"""Samples at a time: engines hold tensors of all of them."""

SHOWN = 8
"""Outputs with at most as many numbers are printed, of others the range."""


def command(arguments: list[str]) -> int:
    """Run `maqd run`; the exit status."""
    parser = Options(
        usage="maqd run GRAPH [FILE ...] [--input KEY=FILE ...] [-o OUT.npz] [--top N] [--resize] [--engine NAME] "
        "[--json]",
        description="Compute a network's outputs: the best classes where the file names them, else codes and scores.",
    )
    parser.add_argument("graph", metavar="GRAPH", type=some_path, help="a .maqd file")
    parser.add_argument(
        "files",
        metavar="FILE",
        type=some_path,
        nargs="*",
        help="of a network with one input: images, folders of them, .npy or .npz",
    )
    parser.add_argument(
        "--input",
        metavar="KEY=FILE",
        action="append",
        default=[],
        help="samples of one input, an image, .npy or .npz; or FILE.npz whose names are the inputs'",
    )
    parser.add_argument("-o", "--output", metavar="OUT.npz", type=some_path, help="write OUTPUT.codes, OUTPUT.scores")
    parser.add_argument("--top", metavar="N", type=whole, help="how many classes (5); also of outputs without labels")
    parser.add_argument("--resize", action="store_true", help="resize the middle square of images of another size")
    parser.add_argument(
        "--engine", choices=list(ENGINES), help="what computes (native, or numpy where that was not built)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.read(arguments)
    if options.top is not None and options.top < 1:
        raise UsageError(f"--top must be at least 1, got {options.top}")
    if bool(options.files) == bool(options.input):
        raise UsageError("give the samples as FILE ..., or as --input KEY=FILE for each input")
    sources = [_key_and_file(text) for text in options.input]
    if options.output is not None:
        if options.output.suffix != ".npz":
            raise UsageError(f"-o must name a .npz file, got {str(options.output)!r}")
        check_output(
            options.output, Artefact.ARRAYS, inputs=[options.graph, *options.files, *(path for _, path in sources)]
        )
    graph = load_graph(options.graph)
    if options.files:
        names, given, failed = _one_input(graph.input, options.files, resize=options.resize)
    else:
        names, given, failed = *_by_key(graph, sources, resize=options.resize), False
    if not names:
        return 1
    engine = (find_engine(options.engine) if options.engine else default_engine()).make(graph)
    codes: dict[str, list[NDArray[np.int32]]] = {node.key: [] for node in graph.outputs}
    for start in range(0, len(names), BATCH):
        found = engine.run({key: array[start : start + BATCH] for key, array in given.items()})
        for key, part in (found if isinstance(found, dict) else {graph.output.key: found}).items():
            codes[key].append(part)
    outputs = [(node, np.concatenate(codes[node.key])) for node in graph.outputs]
    if options.output is not None:
        _save(options.output, graph, outputs)
    answers = [_answers(graph, node, values, options.top) for node, values in outputs]
    if options.json:
        samples = [
            {"sample": name, "outputs": {node.key: own[at] for (node, _), own in zip(outputs, answers, strict=True)}}
            for at, name in enumerate(names)
        ]
        where = None if options.output is None else str(options.output)
        print(json.dumps({"graph": str(options.graph), "engine": engine.name, "output": where, "samples": samples}))
        return 1 if failed else 0
    for (node, _), own in zip(outputs, answers, strict=True):
        title = f"{node.key}: " if len(outputs) > 1 else ""
        print(_table(title, names, own))
    if options.output is not None:
        print(f"wrote {options.output}")
    return 1 if failed else 0


def _key_and_file(text: str) -> tuple[str, Path]:
    """KEY=FILE; without KEY, which only an archive may lack, an empty key.

    Raises:
        UsageError: A part is missing.
    """
    key, equals, file = text.partition("=")
    if not equals and text.endswith(".npz"):
        return "", Path(text)
    if not (key and file):
        raise UsageError(f"--input must be KEY=FILE, or the .npz file of all inputs, got {text!r}")
    return key, Path(file)


def _one_input(
    node: Input, paths: Sequence[Path], *, resize: bool
) -> tuple[list[str], dict[str, NDArray[np.generic]], bool]:
    """Names and samples of all files and of what is in folders; and whether any of them could not be read."""
    names: list[str] = []
    found: list[NDArray[np.generic]] = []
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
                batch = _read(node, file, resize=resize)
            except DataError as error:
                # The other files are still answered.
                print(f"maqd: error: {' '.join(str(error).split())}", file=sys.stderr)
                failed = True
                continue
            names += [str(file)] if len(batch) == 1 else [f"{file}[{number}]" for number in range(len(batch))]
            found.append(batch)
    return names, {node.key: np.concatenate(found)} if found else {}, failed


def _by_key(
    graph: Graph, sources: Sequence[tuple[str, Path]], *, resize: bool
) -> tuple[list[str], dict[str, NDArray[np.generic]]]:
    """Names and samples of each input.

    Raises:
        DataError: A file does not fit its input, or inputs have different numbers of samples.
        UsageError: An input is missing or given twice, or there is none of that key.
    """
    nodes = {node.key: node for node in graph.inputs}
    keys = ", ".join(nodes)
    found: dict[str, NDArray[np.generic]] = {}
    for key, path in sources:
        parts = {} if key else read_arrays(path)
        for own in parts or (key,):
            if own not in nodes:
                raise UsageError(f"{path}: the network has the inputs {keys}, got {own!r}")
            if own in found:
                raise UsageError(f"input {own!r} is given twice; give each of {keys} once")
            found[own] = _read(nodes[own], path, resize=resize) if key else _checked(nodes[own], parts[own], path)
    missing = [key for key in nodes if key not in found]
    if missing:
        raise UsageError(f"the network also takes the input {missing[0]!r}; give it as --input {missing[0]}=FILE")
    counts = {key: len(batch) for key, batch in found.items()}
    if len(set(counts.values())) != 1:
        told = ", ".join(f"{count} of {key}" for key, count in counts.items())
        raise DataError(f"all inputs must have the same number of samples, got {told}; pass as many of each")
    return [str(number) for number in range(next(iter(counts.values())))], found


def _read(node: Input, path: Path, *, resize: bool) -> NDArray[np.generic]:
    """The samples of a file, N x the input's shape.

    Raises:
        DataError: The file cannot be read, or does not fit the input.
    """
    if path.suffix not in SUFFIXES:
        image, lost = read_image(path, node.shape, node.storage.dtype, resize=resize)
        for what in lost:
            note(f"{path}: {what}")
        return _checked(node, image, path)
    arrays = read_arrays(path)
    name = node.key if node.key in arrays else next(iter(arrays))
    if name != node.key and len(arrays) > 1:
        raise DataError(f"{path} has no array {node.key!r}, only {', '.join(arrays)}; name one of them {node.key!r}")
    return _checked(node, arrays[name], path)


def _checked(node: Input, array: NDArray[np.generic], path: Path) -> NDArray[np.generic]:
    try:
        samples, _ = read_samples(node, array)
    except EngineError as error:
        raise DataError(f"{path}: {error}") from error
    if not len(samples.given):
        raise DataError(f"{path} holds no samples; pass at least one")
    return samples.array


def _save(path: Path, graph: Graph, outputs: Sequence[tuple[Output, NDArray[np.int32]]]) -> None:
    arrays: dict[str, Any] = {}
    for node, codes in outputs:
        arrays[f"{node.key}.codes"], arrays[f"{node.key}.scores"] = codes, value_of(graph, node, codes)
    file = io.BytesIO()
    np.savez(file, **arrays)
    write_atomically(path, [file.getbuffer()])


def _answers(graph: Graph, node: Output, codes: NDArray[np.int32], top: int | None) -> list[dict[str, Any]]:
    """What an output says of each sample: its best classes, or codes and scores."""
    if codes.ndim == 2 and (top is not None or graph.labels(node.key)):
        return [
            {"classes": [{"class": c.index, "label": c.label, "logit": c.logit, "score": c.score} for c in classes]}
            for classes in best_classes(graph, node, codes, top=top or 5)
        ]
    scores = value_of(graph, node, codes)
    return [{"codes": own.tolist(), "scores": values.tolist()} for own, values in zip(codes, scores, strict=True)]


def _table(title: str, names: Sequence[str], answers: Sequence[Mapping[str, Any]]) -> str:
    if "classes" in answers[0]:
        return table(
            ("sample", f"{title}class", "logit", "score"),
            [
                (name if place == 0 else "", entry["label"], entry["logit"], entry["score"])
                for name, answer in zip(names, answers, strict=True)
                for place, entry in enumerate(answer["classes"])
            ],
        )
    rows = [
        (name, *(_shown(np.array(answer[what])) for what in ("codes", "scores")))
        for name, answer in zip(names, answers, strict=True)
    ]
    return table(("sample", f"{title}codes", "scores"), rows)


def _shown(values: NDArray[np.generic]) -> str:
    if values.size <= SHOWN:
        return " ".join(f"{value:.9g}" for value in values.ravel())
    return f"{' x '.join(map(str, values.shape))} from {values.min():.9g} to {values.max():.9g}"
