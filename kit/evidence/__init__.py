"""What verification, benchmark and report stand on: entries to run, resampling, the waterfall, what a page shows."""
