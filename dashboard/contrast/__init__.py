"""Two sets of prompts that a page compares: orders and reports."""
