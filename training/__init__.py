"""How it is learned: from photographs with known ages to a bundle that is served."""
