"""A policy on another machine, behind gRPC: its server, and a client that infers like it."""
