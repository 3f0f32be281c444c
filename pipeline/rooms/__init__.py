"""People in the loop: their votes, the reward model that learns from them, and the policy that follows it."""
