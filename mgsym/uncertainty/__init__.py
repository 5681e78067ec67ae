"""How far to trust predictions: calibrated errors, posteriors, distance from the training set."""
