"""What every page that Histoloom serves shares: the app, its security, tokens, and the server."""
