"""Millions of frames: each unit of work has a key, and each key a part of the results."""
