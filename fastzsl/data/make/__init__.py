"""From a user's images and spreadsheet to a checked data set."""
