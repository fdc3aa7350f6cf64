"""Synthetic scenes with known targets."""
