"""AIPP, the chip's own preprocessing of pictures: written from a ``Preprocess``, simulated, read and corrected."""
