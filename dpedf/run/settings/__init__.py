"""Settings: what there are, and how they are written, checked and explained, for config.py."""
