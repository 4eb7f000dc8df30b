"""From planned rollouts to finished episodes."""
