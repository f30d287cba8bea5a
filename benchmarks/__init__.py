"""Measurements: ratios in one run, each with its machine and command."""
