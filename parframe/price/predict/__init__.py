"""Predictions of measurements: rows of a table in, figures with intervals out."""
