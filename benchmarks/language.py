"""Language models: bits per character of the recipes, memory and speed of the native engine.

    python benchmarks/language.py [--json]
    python benchmarks/language.py --speed [--threads N] [--repeats N] [--json]
    python benchmarks/language.py --peer [--repeats N] [--json]
    python benchmarks/language.py --measure --path FILE --runs DIR [--recipes NAME ...] [--seeds N]

Without options it reads docs/results/language.jsonl and builds the large model, in seconds. Keys with `--json`:
RECIPE_bpc, .._spread, .._seeds; w3_bpc_gap, bits per character of three weight states over those of float on the seeds
that both have; memory_ratio, bytes of weights, norms and working memory of the native engine over the packed weights
of a decoder, `LARGE`, with random weights. `--speed` adds decode_tokens_per_second and prompt_tokens_per_second (128
tokens) of it: the best of the repeats, so run it on a quiet machine. `--peer` measures llama.cpp (llama-cpp-python and
gguf) beside it, in alternation on one thread and on two, and appends a row to the results, from which come
decode_tq2_ratio and prompt_tq2_ratio, ours over llama.cpp's with TQ2_0, medians of the repeats, the lower one of the
two numbers of threads; .._tq1_ratio with TQ1_0; and gguf_f32_logit_difference, the largest difference of scores
between llama.cpp with an F32 file and PyTorch without activation quantizers. `--measure` trains recipes on the CPU
budget into directories below `--runs` and appends a row for each that the results file lacks.
"""

import json
import math
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from harness import options_parser, print_json, print_machine
from maqd.bench.llama import LlamaCpp
from maqd.export.gguf import Packing, save_gguf
from maqd.language.model import BlockWeights, LanguageModel, WeightMap
from maqd.machine import machine
from maqd.numerics.packing import PackedCodes
from maqd.numerics.states import States
from maqd.optional import require
from maqd.recipes import Budget, recipe
from maqd.runtime.language_native import NativeLanguage
from maqd.settings.language import TransformerConfig

RESULTS = Path(__file__).parent.parent / "docs" / "results" / "language.jsonl"
RECIPES = ("shakespeare-float", "shakespeare-w3", "shakespeare-w3a15", "shakespeare-b158")

LARGE = TransformerConfig(layers=12, width=1024, heads=16, kv_heads=16, hidden=2816)
"""154.7 million weights."""

CONTEXT, PROMPT, DECODED = 256, 128, 32


def read_rows() -> list[dict[str, object]]:
    """The trainings that were measured."""
    return [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []


def bits(rows: list[dict[str, object]], name: str) -> dict[int, float]:
    """Bits per character by seed."""
    return {int(str(row["seed"])): float(str(row["bits_per_character"])) for row in rows if row.get("recipe") == name}


def accuracy(rows: list[dict[str, object]]) -> dict[str, object]:
    """Means, spreads and the gap."""
    found: dict[str, object] = {}
    for name in RECIPES:
        values = list(bits(rows, name).values())
        if values:
            key = name.removeprefix("shakespeare-")
            found[f"{key}_bpc"] = round(statistics.mean(values), 4)
            found[f"{key}_spread"] = round(statistics.stdev(values), 4) if len(values) > 1 else 0.0
            found[f"{key}_seeds"] = len(values)
    ternary, plain = bits(rows, "shakespeare-w3"), bits(rows, "shakespeare-float")
    both = sorted(ternary.keys() & plain.keys())
    if both:
        found["w3_bpc_gap"] = round(statistics.mean(ternary[seed] - plain[seed] for seed in both), 4)
    return found


def large_model() -> LanguageModel:
    """`LARGE` with random weights."""
    rng = np.random.default_rng(0)
    three, fine = States(count=3, signed=True), States(count=255, signed=True)

    def some(outputs: int, inputs: int, states: States, exponent: int) -> WeightMap:
        codes = rng.integers(states.low, states.high + 1, (outputs, inputs), dtype=np.int16)
        return WeightMap(weight=PackedCodes.pack(codes, states), exponent=exponent)

    def ones(channels: int) -> np.ndarray:
        return np.ones(channels, np.float32)

    def blocks() -> Iterator[BlockWeights]:
        width, hidden = LARGE.width, LARGE.hidden
        for _ in range(LARGE.layers):
            yield BlockWeights(
                attention_norm=ones(width),
                query=some(width, width, three, -5),
                key=some(width, width, three, -5),
                value=some(width, width, three, -5),
                mixed_norm=None,
                output=some(width, width, three, -7),
                feed_norm=ones(width),
                gate=some(hidden, width, three, -5),
                up=some(hidden, width, three, -5),
                hidden_norm=None,
                down=some(width, hidden, three, -8),
            )

    return LanguageModel(
        config=LARGE,
        vocabulary=256,
        context=CONTEXT,
        act_states=255,
        embedding=some(256, LARGE.width, fine, -6),
        blocks=tuple(blocks()),
        norm=ones(LARGE.width),
        head=some(256, LARGE.width, fine, -11),
    )


def speed(engine: NativeLanguage, repeats: int) -> dict[str, object]:
    """Tokens per second: a prompt, and what follows it."""
    prompt = np.random.default_rng(1).integers(0, 256, PROMPT)
    best = {"prompt": math.inf, "decode": math.inf}
    for _ in range(repeats):
        engine.reset()
        begin = time.perf_counter()
        engine.feed(prompt)
        best["prompt"] = min(best["prompt"], (time.perf_counter() - begin) / PROMPT)
        for token in prompt[:DECODED]:
            begin = time.perf_counter()
            engine.feed([int(token)])
            best["decode"] = min(best["decode"], time.perf_counter() - begin)
    return {f"{name}_tokens_per_second": round(1 / value, 1) for name, value in best.items()}


def rates(engine: NativeLanguage | LlamaCpp) -> tuple[float, float]:
    """Tokens per second, once: of a prompt, whose last scores are wanted, and the median of what follows."""
    prompt = np.random.default_rng(1).integers(0, 256, PROMPT)
    engine.reset()
    begin = time.perf_counter()
    if isinstance(engine, LlamaCpp):
        engine.feed(prompt, every=False)
    else:
        engine.feed(prompt)
    found, times = PROMPT / (time.perf_counter() - begin), []
    for token in prompt[:DECODED]:
        begin = time.perf_counter()
        engine.feed([int(token)])
        times.append(time.perf_counter() - begin)
    return found, 1 / statistics.median(times)


def peer_speed(model: LanguageModel, folder: Path, repeats: int) -> dict[str, object]:
    """Tokens per second of ours and of llama.cpp, in alternation, medians, and their ratios."""
    found: dict[str, object] = {}
    for packing in (Packing.TQ2_0, Packing.TQ1_0):
        save_gguf(model, folder / f"{packing.value}.gguf", packing)
    for threads in (1, 2):
        engines = {
            "maqd": NativeLanguage(model, threads=threads),
            **{name: LlamaCpp(folder / f"{name}_0.gguf", threads=threads, context=CONTEXT) for name in ("tq2", "tq1")},
        }
        runs: dict[str, list[tuple[float, float]]] = {name: [] for name in engines}
        for repeat in range(repeats + 1):
            for name, engine in engines.items():
                rate = rates(engine)
                if repeat:  # the first ones warm up
                    runs[name].append(rate)
        for place, what in enumerate(("prompt", "decode")):
            median = {name: statistics.median(run[place] for run in some) for name, some in runs.items()}
            for name, value in median.items():
                found[f"{what}_{name}_{threads}"] = round(value, 1)
            for name in ("tq2", "tq1"):
                found[f"{what}_{name}_{threads}_ratio"] = round(median["maqd"] / median[name], 3)
    for what in ("prompt", "decode"):
        for name in ("tq2", "tq1"):
            found[f"{what}_{name}_ratio"] = min(float(str(found[f"{what}_{name}_{n}_ratio"])) for n in (1, 2))
    return found


def logit_difference(folder: Path) -> float:
    """The largest difference of scores: llama.cpp with an F32 file, PyTorch without activation quantizers."""
    import torch

    from maqd.lowering.language import lower_language
    from maqd.models import Architecture, LanguageNetwork, ModelConfig, build_language
    from maqd.nn.transformer import TokenActivation
    from maqd.settings.quantization import QuantConfig

    torch.manual_seed(0)
    sizes = TransformerConfig(layers=2, width=256, heads=4, kv_heads=2, hidden=512)
    quant = QuantConfig(weight_states=3, act_states=255)
    config = ModelConfig(architecture=Architecture.LLAMA, transformer=sizes, quant=quant)
    network = build_language(config, vocabulary=256, context=CONTEXT).eval()
    assert isinstance(network, LanguageNetwork)
    save_gguf(lower_language(network), folder / "f32.gguf", Packing.F32)
    for module in network.modules():
        if isinstance(module, TokenActivation):
            module.rounding = False
    tokens = np.random.default_rng(0).integers(0, 256, CONTEXT)
    with torch.no_grad():
        wanted = network(torch.from_numpy(tokens)[None])[0].T.numpy()
    return float(np.abs(LlamaCpp(folder / "f32.gguf", context=CONTEXT).feed(tokens) - wanted).max())


def peer(repeats: int) -> None:
    """Measure llama.cpp and append a row."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        row: dict[str, object] = {"peer": f"llama-cpp-python {require('llama_cpp', '--peer').__version__}"}
        row["gguf_f32_logit_difference"] = round(logit_difference(folder), 6)
        row |= peer_speed(large_model(), folder, repeats)
    with RESULTS.open("a") as file:
        file.write(json.dumps({**row, "repeats": repeats, "cpu": machine().cpu}) + "\n")


def peer_results(rows: list[dict[str, object]]) -> dict[str, object]:
    """What the last row beside llama.cpp says."""
    last = [row for row in rows if "peer" in row][-1:]
    return {key: value for row in last for key, value in row.items() if key not in ("repeats", "cpu")}


def measure(path: str, runs: Path, names: list[str], seeds: int) -> None:
    """Train what the results file lacks."""
    from maqd.training.metrics import read_metrics
    from maqd.training.progress import Output
    from maqd.training.run_directory import RunDirectory
    from maqd.training.train import train

    for seed in range(seeds):
        for name in names:
            if seed in bits(read_rows(), name):
                continue
            config = recipe(name).variant(Budget.CPU).config
            run = runs / f"{name}-{seed}"
            data = replace(config.data, path=path)
            train(replace(config, seed=seed, run=str(run), data=data), overwrite=True, output=Output())
            last = [entry for entry in read_metrics(RunDirectory(run).metrics) if entry["event"] == "text"][-1]
            row = {"recipe": name, "seed": seed, "bits_per_character": round(last["test_bits_per_character"], 5)}
            with RESULTS.open("a") as file:
                file.write(json.dumps({**row, "steps": last["step"], "cpu": machine().cpu}) + "\n")


def main() -> None:
    """Run the benchmark."""
    parser = options_parser(__doc__, threads=True, seeds=True)
    parser.add_argument("--speed", action="store_true", help="measure tokens per second")
    parser.add_argument("--peer", action="store_true", help="measure llama.cpp beside it")
    parser.add_argument("--repeats", type=int, default=10, help="repeats of --speed and --peer (10)")
    parser.add_argument("--measure", action="store_true", help="train recipes")
    parser.add_argument("--path", help="of --measure: the text")
    parser.add_argument("--runs", type=Path, help="of --measure: where runs go")
    parser.add_argument("--recipes", nargs="*", default=list(RECIPES), help="of --measure (all)")
    options = parser.parse_args()
    if options.measure:
        if options.path is None or options.runs is None:
            parser.error("--measure needs --path FILE and --runs DIR")
        measure(options.path, options.runs, options.recipes, options.seeds)
    if options.peer:
        peer(options.repeats)
    rows = read_rows()
    model = large_model()
    engine = NativeLanguage(model, threads=options.threads)
    held = engine.constant_bytes + engine.working_bytes
    found = {
        **accuracy(rows),
        **peer_results(rows),
        "memory_ratio": round(held / model.weight_bytes, 4),
        "large_weights": model.weights,
    }
    if options.speed:
        found |= speed(engine, options.repeats)
    if options.json:
        print_json(machine(), found)
        return
    print_machine(machine())
    for key, value in found.items():
        print(f"{key}: {value}")


if __name__ == "__main__":
    main()
