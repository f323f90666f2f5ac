"""The paper's experiments: variants of the model, their trials, tables and statistics."""
