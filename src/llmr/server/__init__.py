"""The HTTP server: hot routes as plain ASGI, the rest by FastAPI."""
