"""Evaluation: metrics of the field, and choices made without test data."""
