"""The forms in which a data set comes."""
