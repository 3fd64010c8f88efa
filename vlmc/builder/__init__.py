"""From a recipe to an artifact: steps, their cache, and the plan."""
