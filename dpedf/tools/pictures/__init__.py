"""The pictures of plot."""
