"""What each kind of node becomes in a plan: one file a family."""
