"""Generated at build time, or made by the embedded runtime: pyright sees only the sources."""
