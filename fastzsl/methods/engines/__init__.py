"""Code that several methods use: scaling of features, statistics, loops, classifiers, synthesis."""
