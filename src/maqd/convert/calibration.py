"""Runs a float network and its conversion side by side: what tensors look like, and how well they agree."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from maqd.convert.fitting import Observed, correct, correct_head, observe, sampled
from maqd.convert.following import follow
from maqd.convert.values import Layer, Norm, Site
from maqd.errors import DataError
from maqd.nn.norm import FoldableNorm
from maqd.nn.tracing import Traced, evaluation

MOST_SAMPLES = 512
"""Samples that a conversion looks at."""


@dataclass(frozen=True, kw_only=True)
class LayerAgreement:
    """How close a quantizer's codes are to the float activation.

    Args:
        name: Of the quantizer.
        cosine: Of the codes and the float values.
    """

    name: str
    cosine: float


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How close a converted network is to the float one, before any training.

    Args:
        samples: That were compared.
        top1: Share of the samples, or of their positions, whose largest result is the same; None where a network
            returns one number.
        cosine: Of all results.
        layers: Of the quantizers, in order.
    """

    samples: int
    top1: float | None
    cosine: float
    layers: tuple[LayerAgreement, ...]


def gathered(batches: Iterable[Any]) -> tuple[Tensor, ...]:
    """The first `MOST_SAMPLES` samples of some batches, each a tensor or a tuple of one for each input."""
    held: list[tuple[Tensor, ...]] = []
    count = 0
    for batch in batches:
        held.append(tuple(batch) if isinstance(batch, tuple | list) else (batch,))
        if not held[-1] or not all(isinstance(one, Tensor) and one.ndim for one in held[-1]):
            raise DataError(
                f"a batch of a conversion is a tensor or a tuple of them, got {type(batch).__name__}; pass tensors, "
                "inputs first"
            )
        count += held[-1][0].shape[0]
        if count >= MOST_SAMPLES:
            break
    if not count:
        raise DataError("a conversion is fitted to at least one batch, got none; pass some, or leave `calibrate` out")
    try:
        return tuple(torch.cat(parts)[:MOST_SAMPLES] for parts in zip(*held, strict=True))
    except (ValueError, RuntimeError) as error:  # other numbers of tensors, or other shapes
        raise DataError(f"batches of a conversion must have one form: {error}; pass batches of one data set") from error


class _Watch(fx.Interpreter):
    """Runs a float network and looks at some of its tensors."""

    def __init__(self, traced: Traced, wanted: dict[fx.Node, int], results: Sequence[fx.Node]) -> None:
        super().__init__(traced.model)
        self.wanted, self.seen = wanted, dict[fx.Node, Observed]()
        self.results: dict[fx.Node, Tensor | None] = dict.fromkeys(results)

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if n in self.wanted:
            self.seen[n] = observe(result, self.wanted[n])
        if n in self.results:
            self.results[n] = result.clone()  # a later call may change it in place
        return result


class _Beside(fx.Interpreter):
    """Runs a float network up to one tensor after the other, beside the converted one.

    Args:
        traced: The float network.
        wanted: What will be asked for, once for each element.
        inputs: Of the network.
    """

    def __init__(self, traced: Traced, wanted: Sequence[fx.Node], inputs: tuple[Tensor, ...]) -> None:
        super().__init__(traced.model)
        self.args_iter = iter(inputs)
        self.left = Counter(wanted)
        self.ahead = iter(traced.model.graph.nodes)
        self.held: dict[fx.Node, Tensor] = {}

    def tensor(self, node: fx.Node) -> Tensor:
        """What a call returned."""
        while node not in self.held:
            call = next(self.ahead)
            self.env[call] = self.run_node(call)
            if call in self.left:
                self.held[call] = self.env[call].clone()  # a later call may change it in place
            for read in self.user_to_last_uses.get(call, []):
                del self.env[read]
        self.left[node] -= 1
        return self.held[node] if self.left[node] else self.held.pop(node)


class _Correct(fx.Interpreter):
    """Runs a converted network; rounds some layers along their inputs, corrects normalizations before their use, and
    the biases of heads.
    """

    def __init__(
        self,
        model: fx.GraphModule,
        sites: dict[str, tuple[Site, Observed]],
        heads: dict[str, tuple[Layer, Observed]],
        layers: Sequence[Layer],
        beside: _Beside,
    ) -> None:
        super().__init__(model)
        self.sites, self.heads, self.layers = sites, heads, {layer.name: layer for layer in layers}
        self.beside = beside
        self.cosines: dict[str, float] = {}

    def call_module(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        layer = self.layers.pop(str(target), None)  # shared weights are rounded for their first input
        if layer is not None and layer.made is not None:
            layer.errors = follow(layer.made, layer.module, args[0], self._ideal(layer))
        if (known := self.heads.get(str(target))) is not None and known[0].made is not None:
            correct_head(known[0].made, super().call_module(target, args, kwargs), known[1], known[0].channel_dim)
        found = self.sites.get(str(target))
        if found is None:
            return super().call_module(target, args, kwargs)
        site, seen = found
        if site.made is None or not isinstance(site.made.norm, FoldableNorm):
            raise RuntimeError(f"{target} is used before it is made")
        act = site.source.activation
        if act is None or not act.folded:
            correct(site.made.norm, args[0], seen, site.scale.value)
            site.made.fold()
        result = super().call_module(target, args, kwargs)
        self.cosines[str(target)] = cosine(sampled(result), site.target(seen.sample))
        return result

    def _ideal(self, layer: Layer) -> Tensor:
        """What a layer would read if nothing before it were rounded."""
        source, value = layer.source, self.beside.tensor(layer.source.float_node)
        numbers, column = source.numbers(), [1] * value.ndim
        column[source.channel_dim] = -1
        return ((value - numbers.b.reshape(column)) / numbers.a.reshape(column)).float()


def cosine(x: Tensor, y: Tensor) -> float:
    """Of the angle between two tensors; 1 if both are zero."""
    x, y = x.flatten().double(), y.flatten().double()
    size = float(x.norm() * y.norm())
    return float(x @ y) / size if size else float(x.norm() == y.norm())


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What a float network's tensors look like.

    Args:
        sites: Before each quantizer.
        heads: Results of the layers whose values leave the network.
        read: Before the normalizations that have no running statistics.
        returned: What the network returns.
    """

    sites: dict[Site, Observed]
    heads: dict[Layer, Observed]
    read: dict[Norm, Observed]
    returned: list[Tensor]


@torch.no_grad()
def watch(
    traced: Traced,
    layers: Sequence[Layer],
    sites: Sequence[Site],
    norms: dict[str, Norm],
    results: Sequence[fx.Node],
    inputs: tuple[Tensor, ...],
) -> Seen:
    """What the float tensors before some quantizers and after heads look like, and what some calls return."""
    wanted, read = {}, dict[Norm, fx.Node]()
    heads = [layer for layer in layers if layer.head and not layer.others]
    for layer in heads:
        wanted[layer.call] = layer.channel_dim
    for site in sites:
        wanted[site.source.float_node] = site.source.channel_dim
        norm = None if site.source.norm is None else norms[site.source.norm]
        if norm is not None and norm.read is not None:
            read[norm] = norm.read
            wanted[norm.read] = site.source.channel_dim
    with evaluation(traced.model):
        runner = _Watch(traced, wanted, results)
        runner.run(*inputs)
    return Seen(
        sites={site: runner.seen[site.source.float_node] for site in sites},
        heads={layer: runner.seen[layer.call] for layer in heads},
        read={norm: runner.seen[node] for norm, node in read.items()},
        returned=[found for node in results if (found := runner.results[node]) is not None],
    )


@torch.no_grad()
def compare(
    model: fx.GraphModule, traced: Traced, seen: Seen, inputs: tuple[Tensor, ...], layers: Sequence[Layer]
) -> Agreement:
    """How well a converted network agrees with the float one, once its normalizations and heads are corrected.

    Args:
        model: The converted network.
        traced: The float one.
        seen: What the float one's tensors look like.
        inputs: For both.
        layers: Whose weights are rounded along their inputs.
    """
    sites = {site.name: (site, observed) for site, observed in seen.sites.items()}
    heads = {layer.name: (layer, observed) for layer, observed in seen.heads.items()}
    with evaluation(model), evaluation(traced.model):
        beside = _Beside(traced, [layer.source.float_node for layer in layers], inputs)
        runner = _Correct(model, sites, heads, layers, beside)
        result = runner.run(*inputs)
    return agreed(flat(result), seen.returned, runner.cosines)


def agreed(results: list[Tensor], expected: list[Tensor], cosines: dict[str, float]) -> Agreement:
    """How close some results are to the float network's, and the cosines of its quantizers by name."""
    pairs = list(zip(results, expected, strict=True))
    first, wanted = pairs[0]
    top1 = None
    if first.ndim > 1 and first.shape[1] > 1:
        top1 = float((first.argmax(1) == wanted.argmax(1)).double().mean())
    return Agreement(
        samples=len(first),
        top1=top1,
        cosine=cosine(torch.cat([one.flatten() for one, _ in pairs]), torch.cat([two.flatten() for _, two in pairs])),
        layers=tuple(LayerAgreement(name=name, cosine=value) for name, value in cosines.items()),
    )


def flat(result: Any) -> list[Tensor]:
    """The tensors of a result, in order."""
    if isinstance(result, Tensor):
        return [result]
    parts = result.values() if isinstance(result, dict) else result if isinstance(result, tuple | list) else ()
    return [tensor for part in parts for tensor in flat(part)]


def assemble(model: nn.Module, modules: dict[str, nn.Module], graph: fx.Graph) -> fx.GraphModule:
    """A module of the calls of a graph and the modules that it names."""
    return fx.GraphModule(modules, graph, class_name=type(model).__name__)  # pyright: ignore[reportArgumentType]
