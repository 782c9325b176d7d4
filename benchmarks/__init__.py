"""What the README's figures of speed are made with; each prints a table."""
