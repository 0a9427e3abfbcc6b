"""One module per command interface: a Command variant to the message or goal that carries it."""
