"""Compare models: train each over seeds and glasses under one protocol and budget."""

from __future__ import annotations

from mgsym.benchmark.plan import (
    CHOSEN_ON_TEST,
    PROTOCOLS,
    BenchmarkPlan,
    Fold,
    benchmark_models,
    load_plan,
    make_folds,
)
from mgsym.benchmark.run import default_benchmark, latest_benchmark, run_benchmark
from mgsym.benchmark.table import Table
from mgsym.benchmark.trial import Planned, Trial

__all__ = [
    "CHOSEN_ON_TEST",
    "PROTOCOLS",
    "BenchmarkPlan",
    "Fold",
    "Planned",
    "Table",
    "Trial",
    "benchmark_models",
    "default_benchmark",
    "latest_benchmark",
    "load_plan",
    "make_folds",
    "run_benchmark",
]
