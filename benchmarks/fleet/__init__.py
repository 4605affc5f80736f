"""A fleet of agents over tiers of stores: simulated by the real planner, library and stores, without a model's work."""
