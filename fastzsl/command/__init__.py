"""Command lines: parsing, exits, processes."""
