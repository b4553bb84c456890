"""Benchmarks of posenc against the limits of memory and against its peers: see README.md."""
