"""What was spent: exact sums by day, model, key and tag, which survive in SQLite."""
