"""What was predicted of a large structure, kept beside the output until all of it is written."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from mgsym.errors import InputError
from mgsym.graph import Graph
from mgsym.prediction.ensemble import Ensemble
from mgsym.utils.files import load_safely, save_safely

FORMAT = "mgsym-unfinished-prediction"
FORMAT_VERSION = 1
SECONDS = 30.0  # between two writings


class UnfinishedPrediction:
    """A file ``<output>.<structure>.unfinished.pt`` (mgsym.prediction.predict.SavedPredictions).

    Args:
        output: where the prediction will be written.
        graph: of the structure.
        ensemble: which predicts it.
        resume: go on from the file, if there is one of this structure and these models.

    Raises:
        InputError: the file is damaged, or of another structure or other models.
    """

    def __init__(self, output: Path, graph: Graph, ensemble: Ensemble, resume: bool) -> None:
        name = graph.names[0] or "structure"
        self.output = output
        self.path = output.with_name(f"{output.name}.{name}.unfinished.pt")
        self.made_of = _fingerprint(graph, ensemble)
        self.atoms = graph.num_nodes
        self.rows: dict[str, Tensor] = {}
        self.whole: dict[str, dict[str, Tensor]] = {}
        self.written = time.monotonic()
        if resume and self.path.exists():
            self._read()

    def _read(self) -> None:
        content = load_safely(self.path, FORMAT, FORMAT_VERSION, "an unfinished prediction")
        if content.get("made_of") != self.made_of:
            raise InputError(
                "is of another structure or of other models: give those, or leave out --resume",
                path=self.path,
            )
        rows: Any = content.get("predictions")
        whole: Any = content.get("prepared")
        if not _of_atoms(rows, whole, self.atoms):
            raise InputError(
                f"is damaged: expected numbers for each of {self.atoms} atoms; leave out --resume",
                path=self.path,
            )
        self.rows, self.whole = rows, whole

    def predictions(self, key: int) -> Tensor | None:
        """[models, n] eV, NaN where nothing was kept; None where nothing was at all."""
        return self.rows.get(str(key))

    def prepared(self, key: int) -> dict[str, Tensor] | None:
        """What models with this key had prepared of the whole structure."""
        return self.whole.get(str(key))

    def keep(self, key: int, predictions: Tensor) -> None:
        """Keep them; written now and then."""
        self.rows[str(key)] = predictions
        if time.monotonic() - self.written > SECONDS:
            self.write()

    def keep_prepared(self, key: int, values: Mapping[str, Tensor]) -> None:
        """Keep and write them."""
        if str(key) not in self.whole:
            self.whole[str(key)] = {name: value.cpu() for name, value in values.items()}
            self.write()

    def write(self) -> None:
        """Write what is known, if anything is."""
        if not self.rows and not self.whole:
            return
        content = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "made_of": self.made_of,
            "predictions": self.rows,
            "prepared": self.whole,
        }
        save_safely(self.path, content)
        self.written = time.monotonic()

    def remove(self) -> None:
        """Nothing is left to go on from."""
        self.path.unlink(missing_ok=True)


def _of_atoms(rows: object, whole: object, atoms: int) -> bool:
    """Whether these are predictions [models, atoms] by key, and tables [atoms, …]."""
    if not isinstance(rows, dict) or not isinstance(whole, dict):
        return False
    tables = [
        table for group in whole.values() if isinstance(group, dict) for table in group.values()
    ]
    numbers = [values.T if isinstance(values, Tensor) else values for values in rows.values()]
    return all(isinstance(group, dict) for group in whole.values()) and all(
        isinstance(v, Tensor) and v.is_floating_point() and v.dim() == 2 and len(v) == atoms
        for v in (*tables, *numbers)
    )


def _fingerprint(graph: Graph, ensemble: Ensemble) -> str:
    digest = hashlib.sha256(repr((graph.species, graph.cutoff)).encode())
    tensors = [graph.positions, graph.cell, graph.types, *graph.node_features.values()]
    for model in ensemble.models:
        tensors += model.state_dict().values()
    for tensor in tensors:
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
