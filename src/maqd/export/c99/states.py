"""What a program keeps from frame to frame: a struct of the caller's, and functions that begin anew and step."""

from maqd.export.c99.ends import Entry, Exit
from maqd.export.c99.program import Program


def _memories(program: Program) -> list[tuple[Entry, Exit, int]]:
    """Input, output and first integer of each memory."""
    into = {end.node.key: end for end in program.ends.inputs}
    out = {end.node.key: end for end in program.ends.outputs}
    found = []
    for memory in program.graph.metadata.memories:
        entry, leaving = into[memory.input], out[memory.output]
        found.append((entry, leaving, memory.initial + entry.zero))
    return found


def _step(program: Program, name: str) -> str:
    """The head of the function that computes a frame."""
    kept = {end.argument for entry, leaving, _ in _memories(program) for end in (entry, leaving)}
    ends = (*program.ends.inputs, *program.ends.outputs)
    given = [end.declaration for end in ends if end.argument not in kept]
    return f"int {name}_step({', '.join((f'{name}_state *state', *given))})"


def declare_states(program: Program, name: str) -> str:
    """What the header says of a program with memories."""
    upper = name.upper()
    fields = "".join(
        f"    {entry.type} {entry.argument}[{entry.buffer.size}];\n"
        f"    int32_t {leaving.argument}[{leaving.buffer.size}];\n"
        for entry, leaving, _ in _memories(program)
    )
    return f"""
/* What is remembered from frame to frame, and memory for a frame: yours, one for each stream. Inputs are what the next
 * frame begins with, outputs what the last one ended with. */
typedef struct {name}_state {{
{fields}    uint32_t arena[{upper}_ARENA_BYTES / 4];
}} {name}_state;

/* Begins anew. Returns 0, or 1 if the pointer is null. */
int {name}_reset({name}_state *state);

/* Computes a frame and remembers what the next one needs. May be called by several threads, each with a state of its
 * own. Returns 0, or 1 if a pointer is null, and then the state is as it was. */
{_step(program, name)};
"""


def write_states(program: Program, name: str) -> str:
    """The functions of a program with memories."""
    memories = _memories(program)
    kept = {end.argument for entry, leaving, _ in memories for end in (entry, leaving)}
    ends = (*program.ends.inputs, *program.ends.outputs)
    arguments = ", ".join(f"state->{end.argument}" if end.argument in kept else end.argument for end in ends)
    begun = "".join(
        f"    for (int32_t i = 0; i < {entry.buffer.size}; i++) state->{entry.argument}[i] = {first};\n"
        for entry, _, first in memories
    )
    handed = "".join(
        f"    for (int32_t i = 0; i < {entry.buffer.size}; i++)\n"
        f"        state->{entry.argument}[i] = ({entry.type})(state->{leaving.argument}[i] + {entry.zero});\n"
        for entry, leaving, _ in memories
    )
    return f"""int {name}_reset({name}_state *state) {{
    if (state == NULL) return 1;
{begun}    return 0;
}}

{_step(program, name)} {{
    if (state == NULL || {name}_run_arena({arguments}, state->arena)) return 1;
{handed}    return 0;
}}
"""
