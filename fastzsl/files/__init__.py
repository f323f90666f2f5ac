"""Files: written whole or not at all; foreign binary files are read in a sandbox."""
