"""What turns pixels and words into tokens."""
