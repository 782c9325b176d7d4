"""What the Contrast page is made of: its fields, its run, and what a report shows."""
