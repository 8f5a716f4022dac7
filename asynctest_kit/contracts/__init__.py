"""What the service under test has promised, and whether it keeps to it."""
