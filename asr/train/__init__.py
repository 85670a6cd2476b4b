"""Training: recipe, setup, loop, state."""
