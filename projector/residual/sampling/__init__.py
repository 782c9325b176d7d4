"""Random draws for grouped samples: label permutations, folds and bootstrap samples."""
