"""Measurement: what happened, counted where it cannot slow a request."""
