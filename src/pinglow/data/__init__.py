"""Data folders: frames, masks and lists; split, audit, make, augment and pack them."""
