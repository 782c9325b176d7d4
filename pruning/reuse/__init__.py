"""Replace neurons by neurons of earlier layers, and measure what that saves and costs."""
