"""A page and a JSON endpoint for a trained run."""
