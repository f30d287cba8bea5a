"""How a model is served: HTTP in, aged faces out. Imports model, never training, never torch."""
