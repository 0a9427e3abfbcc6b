"""`fastvla demo`: the simulated robot does what it is told, and shows it."""
