"""Frames and masks: reading, preparing, augmenting, auditing, making them."""
