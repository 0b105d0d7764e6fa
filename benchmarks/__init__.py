"""Measures the program against its alternatives, in ratios of programs that run alternately."""
