"""How a model is trained: `train` first, the loop in `trainer`."""

from __future__ import annotations

from mgsym.training.runs import TrainedRun
from mgsym.training.train import WORTH_SHARING, train

__all__ = ["WORTH_SHARING", "TrainedRun", "train"]
