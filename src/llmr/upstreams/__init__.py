"""Upstreams: how a request reaches a provider."""
