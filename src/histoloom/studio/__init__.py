"""The studio: a server that weaves what is painted in a browser."""
