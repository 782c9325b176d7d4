"""Two sets of prompts over a model's layers, drawn from what a report holds."""
