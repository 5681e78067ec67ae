"""Where a training run stands: what a resumed run needs beside weights and optimiser."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class TrainingState:
    """Where a run stands.

    Attributes:
        epoch: epochs completed.
        step: steps done of the epoch after those.
        loss_sum, loss_count: of the steps since the last evaluation.
        best, best_epoch: highest mean per-structure Pearson on validation, and when.
        worse: evaluations since then.
        seconds: time spent, over all resumptions.
        stopped: why training ended before its last epoch; empty while it has not.
    """

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    loss_count: int = 0
    best: float = float("-inf")
    best_epoch: int = 0
    worse: int = 0
    seconds: float = 0.0
    stopped: str = ""
    history: list[dict[str, float]] = field(default_factory=list)
