"""Two sets of prompts that a page compares: what is asked, and the reports that are shown."""
