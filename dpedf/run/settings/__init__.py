"""Settings: how they are written, checked and explained, beside config.py, which lists them."""
