"""Minimal servers of the same work on other stacks, written as their own documentation shows."""
