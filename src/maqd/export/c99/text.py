"""What the functions of a program are written with: names, places, initializers, tracing."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from maqd.export.c99.operations import Codes, Operation, step_of
from maqd.export.c99.program import Program, Strategy
from maqd.export.c99.tables import Tables

ELEMENTS = {8: "MAQD_U8", 16: "MAQD_I16", 32: "MAQD_I32"}
TYPES = {8: "uint8_t", 16: "int16_t", 32: "int32_t"}


@dataclass(frozen=True, kw_only=True)
class Traced:
    """A tensor that programs compiled with MAQD_TRACE pass to `<prefix>_trace`.

    Args:
        name: Of the graph's tensor.
        flips: What to multiply its channels by.
        bias: What to add then.
    """

    name: str
    flips: NDArray[np.int8] | None = None
    bias: NDArray[np.int32] | None = None

    def as_computed(self, values: NDArray[np.int64]) -> NDArray[np.int64]:
        """The graph's tensor, N x channels x .., as the program has it."""
        if self.bias is not None:
            values = values - _column(self.bias, values)
        return values if self.flips is None else values * _column(self.flips, values)

    def as_in_graph(self, values: NDArray[np.int64]) -> NDArray[np.int64]:
        """The inverse."""
        if self.flips is not None:
            values = values * _column(self.flips, values)
        return values if self.bias is None else values + _column(self.bias, values)


def _column(channels: NDArray[np.signedinteger], values: NDArray[np.int64]) -> NDArray[np.int64]:
    """A number for each channel, which is dimension 1."""
    return channels.astype(np.int64).reshape(-1, *[1] * (values.ndim - 2))


@dataclass(frozen=True, kw_only=True)
class Body:
    """Text of an operation that computes its result row by row.

    Args:
        start: What comes before the first row.
        rows: How many there are.
        row: What computes the row `row`.
    """

    start: list[str]
    rows: int
    row: list[str]


class Writer:
    """Collects what the functions of a program need.

    Args:
        program: Whose functions are written.
        prefix: Of names that are visible outside.

    Attributes:
        tables: Constant tables and structs, in order.
        shared: Functions that layers share, by name.
        traced: What tracing passes on, in order.
        constants: Names of structs, by type and value.
    """

    def __init__(self, program: Program, prefix: str) -> None:
        self.program = program
        self.prefix = prefix
        self.tables = Tables()
        self.shared: dict[str, str] = {}
        self.traced: list[Traced] = []
        self.constants: dict[tuple[str, str], str] = {}

    @property
    def sharing(self) -> bool:
        """Whether layers of the same kind share code."""
        return self.program.strategy is Strategy.SIZE

    def at(self, codes: Codes) -> str:
        """Where a tensor begins."""
        return f"(const void *){codes.caller}" if codes.offset is None else f"(void *)(arena + {codes.offset // 4})"

    def read(self, codes: Codes, offset: str) -> str:
        """Pointer to an element of a tensor."""
        return f"(const {TYPES[codes.bits]} *){self.at(codes)} + {offset}"

    def write(self, codes: Codes, offset: str) -> str:
        """Pointer to an element of a tensor that is written."""
        return f"({TYPES[codes.bits]} *){self.at(codes)} + {offset}"

    def narrow(self, codes: Codes, count: int, to: str) -> str:
        """Stores sums as elements of a tensor."""
        return f"maqd_narrow(sums, {count}, {element(codes)}, {to});"

    def sums(self, index: int) -> str:
        """Declaration of an operation's scratch memory."""
        return f"    int32_t *const sums = (int32_t *)(void *)(arena + {self.program.memory.scratch[index] // 4});"

    def constant(self, kind: str, name: str, value: str) -> str:
        """The name of a struct that layers share where it is the same: functions that are made for it are, too."""
        if (kind, value) not in self.constants:
            self.constants[kind, value] = name
            self.tables.declare(f"static const {kind} {name} = {value};")
        return self.constants[kind, value]

    def share(self, name: str, text: str) -> str:
        """A function beside those of the layers; its name, or that of one whose text is the same."""
        known = self.constants.setdefault(("", text.replace(name, "", 1)), name)
        self.shared.setdefault(known, text)
        return known

    def trace(self, operation: Operation, *, row: bool) -> list[str]:
        """Passes on the graph's tensors that the operation has stored, or the row `row` of them."""
        plan, lines = self.program.plan, []
        inputs = {buffer.storage for buffer in plan.inputs}
        written = {buffer.storage for buffer in step_of(operation).links.outputs}
        for name, (buffer, _) in plan.tensors.items():
            if buffer.storage not in written or buffer.storage in inputs:
                continue
            codes = self.program.stored(buffer)
            at = self.at(codes)
            if row:
                at = f"(const uint8_t *){at} + {codes.at('row')} * {codes.columns * codes.pixel_bytes}"
                codes = replace(codes, rows=1, kept=1)
            lines += [
                "    {",
                f"        static const maqd_codes traced = {codes_struct(codes)};",
                f"        trace_codes({len(self.traced)}, &traced, {at});",
                "    }",
            ]
            self.traced.append(Traced(name=name))
        return ["#ifdef MAQD_TRACE", *lines, "#endif"] if lines else []


def comment(text: str) -> str:
    """Text that a comment may contain."""
    return "".join(one if one.isprintable() else "?" for one in text).replace("*/", "* /").replace("/*", "/ *")


def string(text: str) -> str:
    """A literal of any text, in UTF-8."""
    plain = {byte: chr(byte) for byte in range(32, 127) if chr(byte) not in '"\\?'}
    return '"' + "".join(plain.get(byte, f"\\{byte:03o}") for byte in text.encode()) + '"'


def brackets(values: tuple[object, ...]) -> str:
    """An initializer."""
    return "{" + ", ".join(str(value) for value in values) + "}"


def element(codes: Codes) -> str:
    """Two arguments: how integers that are not packed are stored, and which one stands for 0."""
    return f"{ELEMENTS[codes.bits]}, {codes.zero}"


def codes_struct(codes: Codes) -> str:
    """A maqd_codes."""
    return brackets((codes.rows, codes.columns, codes.channels, codes.bits, codes.zero, codes.held))


def tensor_struct(codes: Codes) -> str:
    """A maqd_tensor."""
    return brackets((codes.rows, codes.columns, codes.channels, ELEMENTS[codes.bits], codes.zero))
