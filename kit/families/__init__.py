"""Model families: what a kind of model wants as input, what its output means, and how good it is at its task."""
