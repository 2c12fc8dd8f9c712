"""Scores to probabilities and per-tag thresholds, learned from few labels or none."""
