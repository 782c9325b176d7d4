"""What the pages of the residual stream show, as numbers and texts: free of Streamlit."""
