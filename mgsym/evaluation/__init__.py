"""How good predictions are: splits, scores, and what label noise allows."""
