"""The ends of the graph that `pinglow.models.conversion` writes; what to say of others."""

from __future__ import annotations

from typing import Any, Final

from pinglow.errors import ModelError

GRAPH: Final = "graph3"
"""Names the kind of graph; another name makes cached conversions anew."""

GATES_INPUT: Final = "given_gates"
OWN_INPUT: Final = "own"


def check_ends(source: str, inputs: dict[str, list[Any]], outputs: dict[str, list[Any]]) -> None:
    """See that a model has the ends of our graph.

    Args:
        source: Names the model in the error.
        inputs: Shape of each by its name; what is not an integer is of any size.
        outputs: The same.

    Raises:
        ModelError: It has not.
    """
    for name, ends in (("image", inputs), ("probability", outputs)):
        shape = ends.get(name, [])
        if len(shape) != 4 or shape[1] != 1 or "gates" not in outputs:
            raise ModelError(
                f"{source} has inputs {inputs} and outputs {outputs} where image and probability "
                "of (batch, 1, height, width) are needed; use a model that pinglow export has "
                "written"
            )


def unreadable(source: str, runtime: str, error: Exception) -> ModelError:
    """What to say of a model that a runtime does not load."""
    return ModelError(
        f"{source} is damaged, or of a kind that the installed {runtime} does not run "
        f"({last_line(error)}); export it again"
    )


def no_numbers(source: str) -> ModelError:
    """What to say of a model whose answers would be no numbers."""
    return ModelError(
        f"{source} computes no numbers, as its weights hold NaN or infinity: put a whole copy in "
        "its place, or export it again"
    )


def last_line(error: Exception) -> str:
    """The last line of what a runtime says, which has the reason; at most 150 characters."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [repr(error)])[-1][:150]
