"""Estimators and fits: points with N, D and loss in, estimates with intervals out; knows nothing of training."""
