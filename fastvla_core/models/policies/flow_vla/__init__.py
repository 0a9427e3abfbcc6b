"""FastVLA's own policy: a vision-language prefix and a flow-matching action expert."""
