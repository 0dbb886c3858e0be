"""Networks on the Hugging Face hub: an integer graph, and the weights that training goes on from.

Pretrained.of_run("runs/mine").push_to_hub("me/mine")
Pretrained.from_pretrained("me/mine").engine().classify(images)
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maqd.errors import CheckpointError, FormatError
from maqd.graph import Graph, container
from maqd.graph.summary import summarize
from maqd.optional import missing
from maqd.runtime import default_engine, find_engine
from maqd.runtime.engine import BaseEngine
from maqd.settings.functions import check_imports
from maqd.settings.model import ModelConfig
from maqd.settings.tree import from_plain, to_plain

try:
    from huggingface_hub import ModelCard, ModelHubMixin, hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError
except ModuleNotFoundError as error:
    if error.name != "huggingface_hub":
        raise
    raise missing("huggingface_hub", "maqd.hub") from error

if TYPE_CHECKING:
    from torch import nn

GRAPH = "network.maqd"
"""The file of the integer graph."""

WEIGHTS = "model.safetensors"
"""The file of the weights that are trained on."""

CONFIG = "config.json"
"""What builds the network that has them, and what it reached."""


class Pretrained(ModelHubMixin, library_name="maqd", tags=["maqd", "quantization"]):
    """A network as the hub has it. `save_pretrained`, `from_pretrained` and `push_to_hub` are the mixin's.

    Args:
        graph: The integer graph.
        facts: A JSON object: how the network of layers is built ("model", "data") and what it reached ("evaluation"),
            each where it is known.
        weights: A safetensors file with that network's state; nothing where there is the graph alone.
    """

    def __init__(self, graph: Graph, *, facts: str = "{}", weights: bytes = b"") -> None:
        self.graph, self.facts, self.weights = graph, facts, weights

    @classmethod
    def of_run(cls, run: Path | str, *, allow_import: bool = False) -> "Pretrained":
        """The network of a run of `maqd train`: graph, weights, configuration and result.

        Args:
            run: Its directory.
            allow_import: Whether the functions that it names may be imported.

        Raises:
            MaqdError: As `maqd.open_run` and its `graph`.
        """
        from safetensors.torch import save

        from maqd.training.runs import open_run

        opened = open_run(run, allow_import=allow_import)
        header = opened.header
        facts = {"model": to_plain(header.config.model), "data": to_plain(header.data)}
        if header.evaluation is not None:
            facts["evaluation"] = {"images": header.evaluated, **header.evaluation.figures()}
        state = {name: value.contiguous() for name, value in opened.network.state_dict().items()}
        return cls(opened.graph, facts=json.dumps(facts, indent=2), weights=save(state))

    def engine(self, *, threads: int = 1, engine: str | None = None) -> BaseEngine:
        """What runs the graph, as `maqd.load` gives it."""
        entry = default_engine() if engine is None else find_engine(engine)
        return entry.make(self.graph, threads=threads)

    def network(self, *, allow_import: bool = False) -> "nn.Module":
        """The network of layers, in evaluation mode, to train on.

        Args:
            allow_import: Whether the function that builds it, if it is one of your own, may be imported.

        Raises:
            CheckpointError: There is the graph alone, or the weights are another network's.
            ConfigError: It names a function that may not be imported, or that cannot be.
        """
        facts = json.loads(self.facts)
        if not self.weights or "model" not in facts or "data" not in facts:
            raise CheckpointError("this network is a graph alone; train on from the run that it came from")
        from safetensors.torch import load

        from maqd.data import DataInfo
        from maqd.training.checkpoint import check_tensors
        from maqd.training.networks import network_of

        config = from_plain(ModelConfig, facts["model"], where="model")
        if config.function is not None:
            check_imports({"model.function": config.function}, (), where=CONFIG, allow=allow_import)
        network = network_of(config, from_plain(DataInfo, facts["data"], where="data"))
        state = load(self.weights)
        check_tensors(Path(WEIGHTS), network.state_dict(), state)
        network.load_state_dict(state)
        return network.eval()

    def _save_pretrained(self, save_directory: Path) -> None:
        container.save(self.graph, save_directory / GRAPH)
        (save_directory / CONFIG).write_text(self.facts)
        if self.weights:
            (save_directory / WEIGHTS).write_bytes(self.weights)

    @classmethod
    def _from_pretrained(
        cls, *, model_id: str, revision: str | None, cache_dir: Any, force_download: bool, local_files_only: bool,
        token: Any, **_: Any,
    ) -> "Pretrained":  # fmt: skip
        def found(name: str) -> Path | None:
            if Path(model_id).is_dir():
                return path if (path := Path(model_id) / name).exists() else None
            try:
                return Path(
                    hf_hub_download(
                        model_id, name, revision=revision, cache_dir=cache_dir, force_download=force_download,
                        local_files_only=local_files_only, token=token,
                    )
                )  # fmt: skip
            except EntryNotFoundError:
                return None

        graph, facts, weights = (found(name) for name in (GRAPH, CONFIG, WEIGHTS))
        if graph is None:
            raise FormatError(f"{model_id} has no {GRAPH}; name what Pretrained.save_pretrained wrote")
        return cls(
            container.load(graph),
            facts="{}" if facts is None else facts.read_text(),
            weights=b"" if weights is None else weights.read_bytes(),
        )

    def generate_model_card(self, *args: Any, **kwargs: Any) -> ModelCard:
        """What README.md says: states, size, accuracy, and how to run it."""
        return ModelCard(card(self))


def card(model: Pretrained) -> str:
    """The model card of a network."""
    graph, facts = model.graph, json.loads(model.facts)
    summary, size = summarize(graph), len(container.to_bytes(graph))
    reached = facts.get("evaluation", {})
    rows = [
        ("states of weights", states([layer.weight_states for layer in summary.layers])),
        ("states of activations", states([layer.act_states for layer in summary.layers])),
        ("weights", f"{summary.weights:,}"),
        ("multiply-adds a sample", f"{summary.macs:,}"),
        (f"bytes of {GRAPH}", f"{size:,}"),
    ]
    rows += [(f"{name}, {reached.get('images', 'test')} images", f"{reached[name]:.4f}") for name in REACHED
             if name in reached]  # fmt: skip
    if graph.metadata.float_accuracy is not None:
        rows.append(("accuracy of the float network", f"{graph.metadata.float_accuracy:.4f}"))
    inputs = ", ".join(
        f"{node.key}: {node.storage.value} N x {' x '.join(map(str, node.shape))}" for node in graph.inputs
    )
    lines = ["---", "library_name: maqd", "tags:", "- maqd", "- quantization"]
    lines += [f"license: {graph.metadata.licence}"] if graph.metadata.licence else []
    lines += ["---", "", "# A network of few states", "", "| | |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in rows]
    lines += [
        "",
        f"It takes {inputs}, and computes integers alone: the same ones in every engine.",
        "",
        "```python",
        "from maqd.hub import Pretrained",
        "",
        'model = Pretrained.from_pretrained("THIS/REPOSITORY")',
        "scores = model.engine().scores(samples)",
        *(["network = model.network()  # PyTorch, to train on"] if model.weights else []),
        "```",
        "",
        f"`maqd run {GRAPH}` and `maqd export {GRAPH} --to c99 -o program` take the file itself.",
        "",
    ]  # fmt: skip
    return "\n".join(lines)


REACHED = ("accuracy", "metric", "loss")
"""Figures of an evaluation."""


def states(counts: list[int | None]) -> str:
    """Different numbers of states, ascending."""
    return ", ".join(map(str, sorted({count for count in counts if count is not None}))) or "none"
