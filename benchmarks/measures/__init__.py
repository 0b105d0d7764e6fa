"""One module for each measurement; ``measure(bench)`` returns its figures."""
