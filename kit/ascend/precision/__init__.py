"""What is rounded on the chip: the INT8 routes with their files, and lists of what stays precise."""
