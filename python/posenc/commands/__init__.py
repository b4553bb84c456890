"""Commands of `posenc`, one file each: `add` describes the arguments, `run` does the work and returns the exit code.

Nothing but argparse is imported before a command runs. Exit codes: 0 for a good verdict, 1 for a bad one, 2 for input
that cannot be used.
"""
