"""FAKE ``ais_bench.infer``."""
