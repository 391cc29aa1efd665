"""What compile() does for each target: one module each, and what they share."""
