"""Files: written completely or not at all; binary files of other programs are read in a sandbox."""
