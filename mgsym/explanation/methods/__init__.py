"""The methods by which predictions are explained."""
