"""Numbers and texts for the pages of the residual stream, without Streamlit."""
