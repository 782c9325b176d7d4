"""Files of reports, and the folder in which a report is made row by row."""
