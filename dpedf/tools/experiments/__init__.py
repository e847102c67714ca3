"""Many runs: those that lie in a directory, and those of a sweep."""
