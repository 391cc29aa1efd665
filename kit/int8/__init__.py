"""What calibration and quantization stand on: histograms, ranges, which nodes can be INT8, writing and reading QDQ."""
