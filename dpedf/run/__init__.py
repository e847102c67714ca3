"""A run: its settings, its parts, its steps, its reports, and its files."""
