"""Packs: a data folder in one file, lossless."""
