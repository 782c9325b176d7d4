"""What reports have in common: their files, and the folder in which one is made row by row."""
