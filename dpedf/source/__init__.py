"""The program listing: the equations of docstrings, read in a program."""
