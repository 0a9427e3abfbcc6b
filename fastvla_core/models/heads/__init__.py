"""How networks turn what they have read into actions."""
