"""The nodes, their entry points, and what they are made of."""
