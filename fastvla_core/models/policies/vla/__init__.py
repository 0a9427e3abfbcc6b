"""A policy put together from a vision-language backbone, a fusion and an action head."""
