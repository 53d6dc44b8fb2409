"""Benchmarks with one command each: `vswin bench model|step|input`."""
