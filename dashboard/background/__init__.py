"""Work on poles in processes of their own."""
