"""What a conversion did: a table of layers, the agreement with the float network, and what stands in the way."""

from dataclasses import dataclass

from maqd.convert.calibration import Agreement
from maqd.errors import ConfigError
from maqd.lowering import Refusal


class ConversionError(ConfigError):
    """A network cannot be converted whole: all calls that stay in float or cannot be lowered, in order.

    Args:
        refusals: At least one.
    """

    def __init__(self, refusals: tuple[Refusal, ...]) -> None:
        lines = [str(refusal) for refusal in refusals]
        many = f"{len(lines)} calls cannot be converted:"
        super().__init__(lines[0] if len(lines) == 1 else "\n  ".join([many, *lines]))
        self.refusals = refusals

    def __reduce__(self) -> tuple[type, tuple[tuple[Refusal, ...]]]:
        return type(self), (self.refusals,)


@dataclass(frozen=True, kw_only=True)
class Row:
    """What became of a call of the float network.

    Args:
        name: Of its module, or of a function after the module that calls it.
        was: Class or function.
        becomes: In words.
        states: Of its weights or codes; None where it has none.
        weights: Their number.
        macs: Multiplications and additions for one sample.
        refusal: Why it stands in the way of lowering; None if it does not.
    """

    name: str
    was: str
    becomes: str
    states: int | None = None
    weights: int = 0
    macs: int = 0
    refusal: Refusal | None = None


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a conversion did.

    Args:
        rows: One for each call, in order.
        refusals: What stands in the way of lowering; empty if the network can be lowered.
        agreement: With the float network; None where the network could not be run.
    """

    rows: tuple[Row, ...]
    refusals: tuple[Refusal, ...]
    agreement: Agreement | None

    @property
    def weights(self) -> int:
        """Of all layers."""
        return sum(row.weights for row in self.rows)

    @property
    def macs(self) -> int:
        """Of all layers, for one sample."""
        return sum(row.macs for row in self.rows)

    def __str__(self) -> str:
        cells = [("layer", "was", "becomes", "states", "weights", "MACs", "lowers")]
        for row in self.rows:
            cells.append(
                (
                    row.name,
                    row.was,
                    row.becomes,
                    "" if row.states is None else str(row.states),
                    f"{row.weights:,}" if row.weights else "",
                    f"{row.macs:,}" if row.macs else "",
                    "yes" if row.refusal is None else "no",
                )
            )
        widths = [max(len(line[place]) for line in cells) for place in range(len(cells[0]))]
        right = {3, 4, 5}
        lines = [
            "  ".join(
                cell.rjust(width) if place in right else cell.ljust(width)
                for place, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in cells
        ]
        lines.insert(1, "-" * max(map(len, lines)))
        lines.append(f"\n{self.weights:,} weights, {self.macs:,} multiplications and additions per sample")
        if self.agreement is not None:
            top1 = self.agreement.top1
            same = "" if top1 is None else f"{top1:.1%} of the largest results are the float network's, "
            worst = min(self.agreement.layers, key=lambda layer: layer.cosine, default=None)
            lines.append(
                f"without training, on {self.agreement.samples} samples: {same}cosine of the results "
                f"{self.agreement.cosine:.4f}"
                + (f", lowest of a layer {worst.cosine:.4f} ({worst.name})" if worst is not None else "")
            )
        if self.refusals:
            lines.append(f"{len(self.refusals)} calls cannot be lowered:")
            lines += [f"  {refusal}" for refusal in self.refusals]
        else:
            lines.append("it can be lowered")
        return "\n".join(lines)
