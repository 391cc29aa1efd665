"""The parts of ``kit.search``: what could be tried, which trial comes next, one trial, and the log of all."""
