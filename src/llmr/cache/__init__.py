"""The response cache: exact, scoped to one tenant, never wrong."""
