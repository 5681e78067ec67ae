"""The trained model that ships with mgsym, for predictions without a run (cu64zr36.md)."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from mgsym.errors import UsageError
from mgsym.training.runs import latest_run

NAME = "cu64zr36"
SHIPPED = "shipped"  # what --run calls it


def shipped_model() -> Path:
    """The ensemble file of the shipped model."""
    return Path(str(files(__name__))) / f"{NAME}.pt"


def shipped_card() -> Path:
    """What it was trained on, how good it is and where it ends: Markdown."""
    return shipped_model().with_suffix(".md")


def run_or_shipped(run: str | Path | None) -> Path:
    """The run that is named; without a name the latest in runs/, else the shipped model.

    The name ``shipped`` is the shipped model, unless there is a file or folder of that name.
    """
    if run is not None:
        named = str(run) == SHIPPED and not Path(run).exists()
        return shipped_model() if named else Path(run)
    try:
        return latest_run()
    except UsageError:
        return shipped_model()
