"""The report that proves an export equal to its original."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

TOLERANCE = 1e-4


@dataclass(frozen=True)
class TensorError:
    """The largest difference in one tensor, relative to its largest value or to 1, whichever is larger."""

    graph: str
    name: str
    shape: tuple[int, ...]
    error: float


@dataclass(frozen=True)
class ParityReport:
    """The result of a comparison: mismatched names, axes and shapes, and the errors of all tensors for all shapes."""

    tensors: tuple[TensorError, ...]
    problems: tuple[str, ...] = ()
    merge_error: float | None = None
    tolerance: float = TOLERANCE
    shapes_tried: tuple[tuple[int, int], ...] = field(default=())

    @property
    def worst(self) -> TensorError:
        """The tensor with the largest error."""
        return max(self.tensors, key=lambda tensor: float("inf") if math.isnan(tensor.error) else tensor.error)

    @property
    def ok(self) -> bool:
        """True if nothing mismatched and every error is within the tolerance."""
        errors = [self.merge_error or 0.0, *(tensor.error for tensor in self.tensors)]
        return not self.problems and all(error <= self.tolerance for error in errors)  # False for NaN too

    def render(self) -> str:
        """A few lines for people."""
        worst = self.worst
        lines = [
            f"LoRA merge: merged equals unmerged within {self.merge_error:.1e}"
            if self.merge_error is not None
            else "LoRA merge: no adapter",
            f"ONNX against torch: {len(self.tensors)} tensors over {len(self.shapes_tried)} shapes (batch x frames: "
            + ", ".join(f"{b}x{n}" for b, n in self.shapes_tried)
            + ")",
            f"worst tensor: {worst.graph}/{worst.name} {list(worst.shape)}: {worst.error:.1e} "
            f"(limit {self.tolerance:.0e})",
            *(f"problem: {problem}" for problem in self.problems),
        ]
        return "\n".join(lines)
