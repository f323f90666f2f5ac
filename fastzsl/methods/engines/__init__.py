"""What several methods share: scaling of features, statistics, loops, classifiers, synthesis."""
