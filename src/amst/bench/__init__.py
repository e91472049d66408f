"""Benchmarks: each prints its ratio or its time from one run on this machine."""
