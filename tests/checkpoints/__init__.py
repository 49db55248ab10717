"""Makers of folders laid out as the hub's, with seeded random weights, for tests and benchmarks."""
