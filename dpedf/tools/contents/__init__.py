"""What a data file holds, in words."""
