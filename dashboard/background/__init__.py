"""Work in processes of their own: runs of pages that take long, and poles."""
