"""How good a model's answers are: its abilities, where they come from, and what callers say."""
