"""What the model is, and the picture it eats: torch-free but for `networks`."""
