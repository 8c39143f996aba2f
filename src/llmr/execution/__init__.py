"""Execution: carrying a decision out."""
