"""Zero-shot methods, one file each."""
