"""The four parts of the page on changes of basis: a matrix, a ReLU, attention, the skip."""
