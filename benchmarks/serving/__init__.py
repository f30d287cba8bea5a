"""Serving: Anchorage beside other serving stacks on the same graphs, and how they behave."""
