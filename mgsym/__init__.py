"""mgsym: energy barriers around the atoms of metallic glasses, predicted, explained, computed.

The public names are looked up when they are first used, so that importing the package costs
nothing: ``import mgsym`` loads neither torch nor numpy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mgsym.version import __version__

if TYPE_CHECKING:
    from mgsym.data_tools.formats import read as read
    from mgsym.data_tools.formats import write as write
    from mgsym.errors import InputError as InputError
    from mgsym.errors import MgsymError as MgsymError
    from mgsym.errors import UsageError as UsageError
    from mgsym.explanation import Explanation as Explanation
    from mgsym.explanation import explain as explain
    from mgsym.graph import Graph as Graph
    from mgsym.graph import build_graph as build_graph
    from mgsym.graph import collate as collate
    from mgsym.prediction import predict as predict
    from mgsym.structure import Structure as Structure
    from mgsym.training import train as train

_HOME = {
    "Explanation": "mgsym.explanation",
    "Graph": "mgsym.graph",
    "InputError": "mgsym.errors",
    "MgsymError": "mgsym.errors",
    "Structure": "mgsym.structure",
    "UsageError": "mgsym.errors",
    "build_graph": "mgsym.graph",
    "collate": "mgsym.graph",
    "explain": "mgsym.explanation",
    "predict": "mgsym.prediction",
    "read": "mgsym.data_tools.formats",
    "train": "mgsym.training",
    "write": "mgsym.data_tools.formats",
}

__all__ = [*_HOME, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'mgsym' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
