"""An experiment on reuse as people see it: means over seeds, words, figures, and a page."""
