"""What a page shows of work that a process of its own does."""
