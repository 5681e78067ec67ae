"""What is believed of the barriers of a structure: by a model, by searches, and which are in doubt.

Searches enter through the columns that `mgsym label` writes: barrier, barrier_stderr, events.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from mgsym.data_tools.workflows.model_inputs import Potential, graph_for, physics_warning
from mgsym.errors import InputError, UsageError
from mgsym.evaluation.label_noise import SUCCESS, SearchNoise
from mgsym.prediction import barrier_std, load_ensemble, predict_with_spread
from mgsym.prediction.ensemble import Ensemble
from mgsym.structure import Structure
from mgsym.structure.columns import BARRIER, BARRIER_STDERR, EVENTS
from mgsym.uncertainty.active_learning import select_atoms
from mgsym.uncertainty.calibration import Calibration
from mgsym.uncertainty.error_covariance import ErrorCovariance
from mgsym.uncertainty.out_of_distribution import ood_report
from mgsym.uncertainty.posterior import Observed, Posterior, condition
from mgsym.utils.progress import Progress


@dataclass(frozen=True, eq=False)
class PredictiveDistribution:
    """A prediction with its error.

    Attributes:
        structure: whose.
        mean: [n] eV.
        std: [n] eV, of the true barrier.
        calibration: how the errors of its atoms hang together.
        warnings: why it may be wrong.
    """

    structure: Structure
    mean: Tensor
    std: Tensor
    calibration: Calibration
    warnings: tuple[str, ...] = ()

    def posterior(self, observed: Observed) -> Posterior:
        """This together with what searches say."""
        return condition(self.structure, self.mean, self.std, observed, self.calibration)

    def least_certain(self, count: int, searches: int, observed: Observed | None = None) -> Tensor:
        """[count] int64: the atoms to search from next, the most wanted first.

        Args:
            count: how many.
            searches: to be made from each.
            observed: made already; these atoms are not chosen again.

        Raises:
            UsageError: there are not as many.
        """
        std, free = self.std, torch.ones(len(self.structure), dtype=torch.bool)
        if observed is not None and len(observed.rows):
            std = self.posterior(observed).std
            free[observed.rows] = False
        noise = SearchNoise().variance / max(SUCCESS * searches, 1.0)
        return select_atoms(
            ErrorCovariance.of(self.structure, std, self.calibration), count, noise, free
        )


def predict_with_error(
    structure: Structure,
    run: str | Path,
    potential: Potential = None,
    device: str | torch.device = "auto",
    progress: Progress | None = None,
) -> PredictiveDistribution:
    """What a run predicts for a structure, with the standard deviation of its error.

    Without a calibration this is the run's root mean square error on its validation structures,
    and errors count as independent; a warning says so.

    Args:
        structure: atoms.
        run: a run, a folder of seeds, a checkpoint or an ensemble.
        potential: for models with physical inputs.
        device: where to compute.
        progress: called with parts of the physical inputs done and in all.

    Raises:
        InputError: the run is missing or damaged or does not fit the structure, or nothing tells
            how large its error is.
    """
    ensemble = load_ensemble(run, device)
    graph = graph_for(structure, ensemble, potential, device, progress)
    (prediction,) = predict_with_spread([graph], ensemble)
    warnings = (
        *ood_report(graph, ensemble.training_set).warnings,
        *physics_warning(graph, ensemble),
    )
    calibration = ensemble.calibration
    if calibration is None:
        error = _validation_error(ensemble)
        if math.isnan(error):
            raise InputError(
                "does not tell how large its error is, neither by a calibration nor by scores on "
                "validation structures: calibrate it with mgsym ensemble --calibrate",
                path=Path(run),
            )
        calibration = Calibration(scale=0.0, floor=error)
        warnings += (
            f"the run is not calibrated: its error is taken as {error:.3f} eV everywhere, as on "
            "its validation structures, and as independent between atoms; mgsym ensemble "
            "--calibrate makes more of the same searches",
        )
        ensemble = replace(ensemble, calibration=calibration)
    std = barrier_std(prediction, graph, ensemble)
    return PredictiveDistribution(structure, prediction.mean, std, calibration, warnings)


def observed_in(structure: Structure, scale: float = 1.0, shift: float = 0.0) -> Observed:
    """The barriers that searches found, from the columns of a labelled structure.

    With the column events, variances come of the scatter of single searches, pooled over atoms
    (mgsym.evaluation.label_noise); without it they are those of barrier_stderr, the median where it
    is NaN.

    Args:
        structure: with the column barrier, and events or barrier_stderr.
        scale, shift: a known difference to the labels that the model learned: scale times the
            barrier, plus shift in eV, takes its place.

    Raises:
        InputError: there is no barrier, or nothing tells how well it is known.
    """
    columns = structure.columns
    lacking = BARRIER if BARRIER not in columns else EVENTS
    stderr = columns[BARRIER_STDERR].values.double() if BARRIER_STDERR in columns else None
    if lacking == BARRIER or (EVENTS not in columns and stderr is None):
        raise InputError(
            f"has no column {lacking}: expected barrier, barrier_stderr and events as mgsym label "
            "writes them",
            path=structure.name or None,
        )
    barrier = columns[BARRIER].values.double()
    if EVENTS in columns:
        count = columns[EVENTS].values
        stderr = torch.full_like(barrier, math.nan) if stderr is None else stderr
        variance = SearchNoise.fit(stderr, count).of_means(stderr, count)
    else:
        assert stderr is not None
        variance = stderr.nan_to_num(nan=float(stderr[barrier.isfinite()].nanmedian())).square()
    usable = barrier.isfinite() & variance.isfinite() & (variance > 0)
    rows = usable.nonzero().squeeze(1)
    return Observed(rows, scale * barrier[rows] + shift, scale**2 * variance[rows])


def rows_to_label(
    structure: Structure,
    run: str | Path,
    count: int,
    searches: int,
    potential: Potential = None,
    device: str | torch.device = "auto",
) -> list[int]:
    """Ascending rows of the atoms that a run is least certain of, labelled ones left out.

    Args:
        structure: its columns barrier and events, where it has them, count as labels.
        run: as `predict_with_error` takes it.
        count: how many.
        searches: to be made from each.
        potential, device: as `predict_with_error` takes them.

    Raises:
        UsageError: there are not as many unlabelled atoms.
    """
    distribution = predict_with_error(structure, run, potential, device)
    labelled = BARRIER in structure.columns and EVENTS in structure.columns
    observed = observed_in(structure) if labelled else None
    return sorted(distribution.least_certain(count, searches, observed).tolist())


def share_of(count: int, share: float) -> int:
    """How many atoms a share of `count` is, at least one.

    Raises:
        UsageError: the share is not above 0 and at most 1.
    """
    if not 0 < share <= 1:
        raise UsageError(f"share is {share:g}, expected above 0 and at most 1")
    return max(1, round(share * count))


def _validation_error(ensemble: Ensemble) -> float:
    """eV: the root mean square error on validation structures, averaged over models; or NaN."""
    errors = []
    for member in ensemble.members:
        scores = {} if member.metadata is None else member.metadata.extra.get("scores", {})
        error = scores.get("validation", {}).get("pooled", {}).get("rmse")
        errors.append(math.nan if error is None else float(error))
    return math.fsum(errors) / len(errors)
