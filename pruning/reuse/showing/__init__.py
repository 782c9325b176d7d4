"""Show an experiment on reuse: means over seeds, sentences, figures, and a page."""
