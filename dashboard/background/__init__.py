"""Work in separate processes: long runs of pages, and poles."""
