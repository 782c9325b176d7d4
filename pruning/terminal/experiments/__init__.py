"""Commands that make and score many models, and report on them."""
