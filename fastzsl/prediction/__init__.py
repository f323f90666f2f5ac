"""A trained run as a recogniser."""
