"""A stand-in for the model and data hub: an HTTP server, repositories in the forms that real ones have, their tests."""
