"""The ranks of a run: how they add gradients, agree, and end together."""
