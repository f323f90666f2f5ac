"""Descriptions of classes: one reader for tables, .npz and .mat files."""
