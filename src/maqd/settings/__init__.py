"""Values that describe a run. No torch, no files."""
