"""What calibration stands on: exact histograms and sums, the loops that count, the run of a model in parts."""
