"""Name the columns that mgsym itself reads and writes, with their units."""

from __future__ import annotations

BARRIER = "barrier"  # eV, the label: the mean over an atom's events
STDERR = "_stderr"  # ends the name of a label's standard error
BARRIER_STDERR = BARRIER + STDERR  # eV
EVENTS = "events"  # how many a label is the mean of
PREDICTED = "barrier_predicted"  # eV, by a model, or with searches where there are any
MODEL = "barrier_model"  # eV, by the model alone, where `PREDICTED` knows of searches
STD = "_std"  # ends the name of a prediction's standard deviation
DISTANCE = "training_distance"  # from what a model was trained on; 1 is usual
