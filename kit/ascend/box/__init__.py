"""On the box: the script of a bundle, its rehearsal with FAKE tools, and the results that come back."""
