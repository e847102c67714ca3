"""The tools of `dpedf TOOL ...`, one file each, which defines main(words).

Its docstring begins with what the tool does and an example, a line each.  main returns the exit
status, None for 0.  dpedf/__main__.py prints the line of a UserError, and exits with 2.
"""
