"""From a manifest to a plan: items, prices, estimates, locks, and plans that are kept."""
