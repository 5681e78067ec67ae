"""Train models: read `train` first, which says what else to read."""

from __future__ import annotations

from mgsym.training.runs import TrainedRun
from mgsym.training.train import WORTH_SHARING, train

__all__ = ["WORTH_SHARING", "TrainedRun", "train"]
