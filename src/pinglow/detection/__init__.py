"""Detectors: boxes instead of pixels, with the same data, runs and output as segmentation."""
