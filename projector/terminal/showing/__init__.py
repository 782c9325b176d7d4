"""Commands that show what is saved."""
