"""A simulated world for the estimators and the decision: how much is lost by not knowing it."""
