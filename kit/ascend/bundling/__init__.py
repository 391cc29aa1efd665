"""The bundle that ``kit.compile`` writes for a chip."""
