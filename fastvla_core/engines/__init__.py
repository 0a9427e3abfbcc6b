"""How a request is executed: as written, compiled, as a captured graph, or by another runtime."""
