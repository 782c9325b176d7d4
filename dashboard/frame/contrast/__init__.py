"""Parts of the Contrast page: fields, run, and report."""
